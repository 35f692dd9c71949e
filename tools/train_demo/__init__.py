"""Make the demo model that ships with moesaic: corpus, tokenizer, training, export, check.

Using moesaic never needs this package: its product, ``src/moesaic/demo/demo.gguf``, is committed.
It is the record of how that file came to be, and the way to make another one.
"""
