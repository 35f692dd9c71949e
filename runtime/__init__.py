"""Plan directory -> logits -> text."""
