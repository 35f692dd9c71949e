"""Rebuild the demo model, step by step.

Needs torch, transformers, gguf and tokenizers, and Debian's package r-cran-janeaustenr unpacked::

    apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_*.deb novels
    export PYTHONPATH=tools
    python -m train_demo train --novels novels --work work --seconds 3300
    python -m train_demo export --novels novels --work work
    python -m train_demo check --novels novels --work work
    python -m train_demo golden --novels novels

``train`` can be interrupted and run again: it goes on from the last checkpoint in ``--work``.
The schedule follows the clock, so two runs give two (similar) models; ``golden`` then rewrites the
fixture that moesaic's tests compare the committed file with.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer

from train_demo import corpus, export, reference, tokenizer, train
from train_demo.model import DemoConfig, DemoModel
from train_demo.mxfp4 import round_to_mxfp4

ROOT = Path(__file__).parents[2]
GGUF_PATH = ROOT / "src/moesaic/demo/demo.gguf"
GOLDEN_PATH = ROOT / "tests/golden/demo/logits.npz"
PROMPTS = ("It was a fine morning in spring, and", "The young man", '"My dear sister,"')


def main() -> None:
    """Parse the command line and run one step."""
    parser = argparse.ArgumentParser(prog="train_demo", description="rebuild the demo model")
    parser.add_argument("step", choices=("train", "export", "check", "golden"))
    parser.add_argument("--novels", type=Path, required=True, help="the unpacked Debian package")
    parser.add_argument("--work", type=Path, default=Path("work"), help="checkpoint, tokenizer")
    parser.add_argument("--seconds", type=float, default=3300.0, help="training time")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    texts = corpus.load(arguments.novels)
    if arguments.step == "golden":
        _golden(texts)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    bpe = tokenizer.train_or_load(arguments.work / "tokenizer.json", texts.train)
    if arguments.step == "train":
        train.train(texts, bpe, arguments.work, arguments.seconds)
    elif arguments.step == "export":
        export.export(_trained(arguments.work), bpe, GGUF_PATH)
        print(f"{GGUF_PATH}: {GGUF_PATH.stat().st_size} bytes")
    else:
        _check(_trained(arguments.work), texts, bpe)


def _trained(work: Path) -> DemoModel:
    """The model of the last checkpoint."""
    model = DemoModel(DemoConfig())
    model.load_state_dict(torch.load(work / "checkpoint.pt")["model"])
    return model.eval()


def _check(trained: DemoModel, texts: corpus.Corpus, bpe: Tokenizer) -> None:
    """Compare the file with the trained weights; print perplexities and samples."""
    exported = reference.load(GGUF_PATH)
    rebuilt = reference.load_tokenizer(GGUF_PATH)
    tokens = train.encode_documents(bpe, texts.held_out)
    if not torch.equal(tokens, train.encode_documents(rebuilt, texts.held_out)):
        raise ValueError("the tokenizer in the file encodes the held-out text differently")
    _check_rounding(trained, exported)
    results = {
        "tokens": len(tokens),
        "float": reference.perplexity(trained, tokens, bpe)._asdict(),
        "float, experts rounded": reference.perplexity(trained, tokens, bpe, True)._asdict(),
        "exported": reference.perplexity(exported, tokens, bpe)._asdict(),
    }
    print(json.dumps(results, indent=2))
    torch.manual_seed(0)
    for prompt in PROMPTS:
        ids = bpe.encode(prompt).ids
        for temperature in (0.0, 0.8):
            continued, _ = reference.generate(exported, ids, 60, temperature)
            text = bpe.decode(continued, skip_special_tokens=False)
            print(f"[temperature {temperature}] {prompt}|{text}")


def _check_rounding(trained: DemoModel, exported: torch.nn.Module) -> None:
    """The file's expert weights are exactly what training rounded to."""
    for n, layer in enumerate(trained.blk):
        experts = exported.get_submodule(f"model.layers.{n}.mlp.experts")
        in_file = {
            "ffn_gate_exps": experts.gate_up_proj[..., ::2],
            "ffn_up_exps": experts.gate_up_proj[..., 1::2],
            "ffn_down_exps": experts.down_proj,
        }
        for name, weights in in_file.items():
            expected = round_to_mxfp4(getattr(layer.experts, name).weight).transpose(1, 2)
            if not torch.equal(weights, expected):
                raise ValueError(f"layer {n}: the file's {name} differ from those trained")


def _golden(texts: corpus.Corpus) -> None:
    """Write the fixture from the committed file."""
    bpe = reference.load_tokenizer(GGUF_PATH)
    tokens = train.encode_documents(bpe, texts.held_out)
    reference.write_golden(reference.load(GGUF_PATH), tokens, bpe, GOLDEN_PATH)
    print(f"{GOLDEN_PATH}: {GOLDEN_PATH.stat().st_size} bytes")


if __name__ == "__main__":
    main()
