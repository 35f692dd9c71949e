"""The models whose shapes, types and metadata are known; a row for each.

Sizes and keys are those of the published files, weights are random.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import synthetic_families as family
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType
from synthetic_base import Model

GPT_OSS_20B = Model(
    name="gpt-oss-20b",
    arch="gpt-oss",
    layers=24,
    of_layers=24,
    width=2880,
    heads=64,
    kv_heads=8,
    head_dim=64,
    ff=2880,
    experts=32,
    used=4,
    vocab=201088,
    context=131072,
    theta=150000.0,
    file_type=LlamaFileType.MOSTLY_MXFP4_MOE,
    tensors=family.gpt_oss_tensors,
    metadata=family.gpt_oss_metadata,
)

MODELS = {
    m.name: m
    for m in (
        GPT_OSS_20B,
        replace(
            GPT_OSS_20B,
            name="gpt-oss-20b-f16",
            tensors=partial(family.gpt_oss_tensors, dense=Type.F16),
        ),
        Model(
            name="mixtral-8x7b",
            arch="llama",
            layers=32,
            of_layers=32,
            width=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            ff=14336,
            experts=8,
            used=2,
            vocab=32000,
            context=32768,
            theta=1e6,
            file_type=LlamaFileType.MOSTLY_Q4_K_M,
            tensors=family.mixtral_tensors,
            metadata=family.mixtral_metadata,
        ),
        Model(
            name="phi-3.5-moe-f16",
            arch="phimoe",
            layers=32,
            of_layers=32,
            width=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            ff=6400,
            experts=16,
            used=2,
            vocab=32064,
            context=131072,
            theta=10000.0,
            file_type=LlamaFileType.MOSTLY_F16,
            tensors=family.phimoe_tensors,
            metadata=family.phimoe_metadata,
        ),
        Model(
            name="deepseek-moe-16b-f16",
            arch="deepseek",
            layers=28,
            of_layers=28,
            width=2048,
            heads=16,
            kv_heads=16,
            head_dim=128,
            ff=1408,
            experts=64,
            used=6,
            vocab=102400,
            context=4096,
            theta=10000.0,
            file_type=LlamaFileType.MOSTLY_F16,
            tensors=family.deepseek_tensors,
            metadata=family.deepseek_metadata,
        ),
        Model(
            name="qwen3-30b-a3b",
            arch="qwen3moe",
            layers=48,
            of_layers=48,
            width=2048,
            heads=32,
            kv_heads=4,
            head_dim=128,
            ff=768,
            experts=128,
            used=8,
            vocab=151936,
            context=40960,
            theta=1000000.0,
            file_type=LlamaFileType.MOSTLY_Q4_K_M,
            tensors=family.qwen3moe_tensors,
            metadata=family.qwen3moe_metadata,
        ),
    )
}
