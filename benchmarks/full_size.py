"""Takes a model of real size the whole way: partition, open, prefill, decode; seconds and memory.

    python benchmarks/synthetic.py gpt-oss-20b -o gpt-oss-20b.gguf
    python benchmarks/full_size.py gpt-oss-20b.gguf plan/ --json result.json

Prints what each stage took, the resident memory (PSS) after decoding, and the bound that the plan
implies: 1.03 times weights and KV, plus 300 MB. An existing plan is used as it is.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import moesaic


def memory_of_this_process() -> dict[str, int]:
    """Bytes of this process from the kernel's books: PSS in all, and its anonymous share."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name.rstrip(":")] = int(value) * 1024
    return {"pss": fields["Pss"], "anonymous": fields["Pss_Anon"], "file": fields["Pss_File"]}


def cpu_model() -> str:
    """Name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"


def measure(model: Path, plan: Path, tokens: int, prompt_tokens: int) -> dict[str, Any]:
    """Runs every stage once."""
    result: dict[str, Any] = {"machine": cpu_model(), "model": model.name}
    if not plan.exists():
        start = time.perf_counter()
        moesaic.partition(model, plan)
        seconds = time.perf_counter() - start
        result["partition_seconds"] = seconds
        result["partition_gb_per_second"] = model.stat().st_size / seconds / 1e9
    start = time.perf_counter()
    with moesaic.Runtime(plan) as rt:
        result["open_seconds"] = time.perf_counter() - start
        result["threads"] = rt.threads
        prompt = [i % 1000 + 100 for i in range(prompt_tokens)]
        rt.generate(prompt[:1], max_tokens=1, ignore_eos=True)  # brings the first pages in
        reply = rt.generate(prompt, max_tokens=tokens, temperature=0, ignore_eos=True)
        result["prompt_tokens"] = prompt_tokens
        result["prefill_tokens_per_second"] = reply.prefill_tokens_per_second
        result["tokens"] = len(reply.tokens)
        result["decode_tokens_per_second"] = reply.decode_tokens_per_second
        result.update(memory_of_this_process())
        (memory,) = rt.memory()
        result["planned"] = memory["planned"]
    planned = result["planned"]
    result["pss_bound"] = 1.03 * (planned["weights"] + planned["kv"]) + 300e6
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.model, arguments.plan, arguments.tokens, arguments.prompt_tokens)
    for name, value in result.items():
        print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
