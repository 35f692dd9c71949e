"""The blocks that decoder families share: linear, norms, sums, embedding and head.

Each adds nodes to a `Builder` and returns a value, float32 [batch, sequence, width]. Tensor names
are those of GGUF, without the layer. Attention and the feed-forward half have files of their own.
"""

import math
from collections.abc import Callable
from typing import Literal

import onnx_ir as ir

from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._hyper import Hyper
from moesaic.partitioner.gguf import GgufFile
from moesaic.plan_format import ModelFacts

Bias = Literal["none", "optional", "required"]


def linear(
    b: Builder,
    name: str,
    x: ir.Value,
    tensor: str,
    rows: int,
    *,
    bias: Bias = "none",
    fused: tuple[str, int, int] | None = None,
) -> ir.Value:
    """Adds x · weightᵀ + bias, the product times `<tensor>.scale` if the file has one.

    Args:
        b: The model.
        name: Name of the node.
        x: Activations.
        tensor: The weight is `<tensor>.weight`, the bias `<tensor>.bias`.
        rows: Width of the result.
        bias: Whether there is a bias.
        fused: (tensor, all its rows, first row) if the weight is a range of rows of a larger one.
    """
    place = (f"{fused[0]}.weight", *fused[1:]) if fused else None
    weight = b.weights.matrix(f"{tensor}.weight", rows, width_of(x), within=place)
    source = fused[0] if fused else tensor
    factor = _product_scale(b, source)
    if not _is_biased(b, source, bias):
        y = multiply(b, name, x, weight, None)
        return y if factor == 1 else scale(b, f"{name}_scale", y, factor)
    if factor != 1:
        b.weights.refuse(f"{source}.scale", "not supported for a product that has a bias")
    place = (f"{fused[0]}.bias", *fused[1:]) if fused else None
    return multiply(b, name, x, weight, b.weights.vector(f"{tensor}.bias", rows, within=place))


def _is_biased(b: Builder, tensor: str, bias: Bias) -> bool:
    """Tells whether a projection has a bias; an optional one is in all layers or in none."""
    if bias == "optional":
        return b.weights.has_in_all_layers(f"{tensor}.bias")
    return bias == "required"


def row(b: Builder, name: str, x: ir.Value, tensor: str) -> ir.Value:
    """Adds the product of x and one row, `<tensor>.weight` [width] or [1, width]: one value."""
    return multiply(b, name, x, b.weights.row(f"{tensor}.weight", width_of(x)), None)


def multiply(
    b: Builder, name: str, x: ir.Value, weight: ir.Value, bias: ir.Value | None
) -> ir.Value:
    """Adds x · weightᵀ + bias for weights at hand."""
    part = b.parts(weight)[0]
    (y,) = b.node(
        "Linear", name, [x], [weight, bias], codec=part.codec, rows=part.rows, cols=part.cols
    )
    return y


def norm(b: Builder, name: str, x: ir.Value, tensor: str, eps: float, groups: int = 1) -> ir.Value:
    """Adds the RMS norm of each of `groups` runs of the last axis, with the weight of `tensor`."""
    weight = b.weights.vector(f"{tensor}.weight", width_of(x) // groups)
    (y,) = b.node("RMSNorm", name, [x], [weight], eps=eps, groups=groups)
    return y


def layer_norm(b: Builder, name: str, x: ir.Value, tensor: str, eps: float) -> ir.Value:
    """Adds the layer norm of the last axis, with the weight and the bias of `tensor`."""
    weight = b.weights.vector(f"{tensor}.weight", width_of(x))
    bias = b.weights.vector(f"{tensor}.bias", width_of(x))
    (y,) = b.node("LayerNorm", name, [x], [weight, bias], eps=eps)
    return y


def add(b: Builder, name: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """Adds a residual."""
    (out,) = b.node("Add", name, [x, y])
    return out


def scale(b: Builder, name: str, x: ir.Value, factor: float) -> ir.Value:
    """Adds factor · x."""
    (y,) = b.node("Scale", name, [x], factor=float(factor))
    return y


def embedding(b: Builder, vocab: int, hidden: int) -> ir.Value:
    """Adds the rows of `token_embd.weight`."""
    table = b.weights.matrix("token_embd.weight", vocab, hidden)
    part = b.parts(table)[0]
    (x,) = b.node(
        "Embedding", "embed", [b.input_ids], [table], codec=part.codec, rows=vocab, cols=hidden
    )
    return x


def head(
    b: Builder,
    x: ir.Value,
    hyper: Hyper,
    *,
    tied: bool,
    logit_scale: float = 1.0,
    softcap: float = 0.0,
    bias: Bias = "none",
    normalise: Callable[[Builder, str, ir.Value, str, float], ir.Value] = norm,
) -> ir.Value:
    """Adds the final norm and the projection to logits.

    Args:
        b: The model.
        x: The residual stream.
        hyper: Sizes and epsilon.
        tied: Whether the embedding is the projection if the file has no `output.weight`.
        logit_scale: What divides the logits.
        softcap: The tanh cap on the logits, 0 for none.
        bias: Whether the projection has a bias.
        normalise: The block of the norm.
    """
    with b.place("head"):
        x = normalise(b, "norm", x, "output_norm", hyper.eps)
        if logit_scale != 1:  # of the narrower side of the projection
            x = scale(b, "logit_scale", x, 1 / logit_scale)
        own = not tied or b.weights.has("output.weight")
        tensor = "output.weight" if own else "token_embd.weight"
        weight = b.weights.matrix(tensor, hyper.vocab, hyper.hidden)
        biased = bias == "required" or (bias == "optional" and b.weights.has("output.bias"))
        addend = b.weights.vector("output.bias", hyper.vocab) if biased else None
        logits = multiply(b, "lm_head", x, weight, addend)
        if softcap:
            (logits,) = b.node("Softcap", "softcap", [logits], cap=float(softcap))
    return logits


def finish(b: Builder, logits: ir.Value, hyper: Hyper) -> Model:
    """Returns the model with its facts; blocks that predict further tokens are left out."""
    b.weights.skip_blocks(hyper.layers, hyper.blocks)
    gguf = b.gguf
    facts = ModelFacts(
        name=gguf.metadata.str("general.name", gguf.path.stem),
        architecture=gguf.architecture,
        layers=hyper.layers,
        hidden_size=hyper.hidden,
        vocab_size=hyper.vocab,
        context_length=hyper.context,
        experts=hyper.experts,
        experts_used=hyper.experts_used,
        parameters=_elements(gguf),
    )
    return b.finish(logits, facts)


def _product_scale(b: Builder, tensor: str) -> float:
    """Returns the second-level scale of a weight, 1 if there is none.

    Files of NVFP4 weights have it, and the scale that their inputs had, which plays no part here.
    """
    if b.weights.has(f"{tensor}.input_scale"):
        b.weights.floats(f"{tensor}.input_scale", 1)
    key = f"{tensor}.scale"
    if not b.weights.has(key):
        return 1.0
    factor = float(b.weights.floats(key, 1)[0])
    if not math.isfinite(factor):
        b.weights.refuse(key, f"expected a finite number but got {factor}")
    return factor


def width_of(x: ir.Value) -> int:
    """Returns the size of the last axis."""
    assert x.shape is not None
    return int(x.shape[-1])  # type: ignore[arg-type]


def _elements(gguf: GgufFile) -> int:
    sizes = 0
    for info in gguf.tensors.values():
        size = 1
        for dim in info.shape:
            size *= dim
        sizes += size
    return sizes
