"""``moesaic run``: continue a prompt, streaming the text to stdout."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from moesaic.cli._open import open_runtime
from moesaic.cli._options import (
    Context,
    MinP,
    ModelPath,
    RepetitionPenalty,
    Seed,
    Temperature,
    Threads,
    TopK,
    TopP,
)
from moesaic.cli._record import recording
from moesaic.cli._render import err, errors_as_messages, print_json
from moesaic.errors import RequestError
from moesaic.runtime import Completion, Piece

__all__ = ["last_completion", "print_rates", "run"]


def run(
    plan: ModelPath,
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; `-` or none reads stdin.")
    ] = None,
    *,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a chat message.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="System message, with --chat.")] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", help="Tokens to generate at most.")
    ] = 256,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End at this text; may be repeated.")
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Go on past the model's end tokens.")
    ] = False,
    threads: Threads = None,
    context: Context = None,
    record_usage: Annotated[
        Path | None,
        typer.Option(help="Add which experts were chosen to this profile, for `--usage`."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document at the end.")
    ] = False,
) -> None:
    """Continue a prompt with a partitioned model, or with a GGUF file."""
    given: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": stop,
        "ignore_eos": ignore_eos,
    }
    sampling = {name: value for name, value in given.items() if value is not None}
    with errors_as_messages():
        text = prompt if prompt is not None and prompt != "-" else _read_stdin()
    options = {"threads": threads, "context": context}
    with (
        errors_as_messages(),
        open_runtime(plan, **options, record_usage=record_usage is not None) as runtime,
        recording(runtime, record_usage),
    ):
        if chat:
            messages = [{"role": "user", "content": text}]
            if system is not None:
                messages.insert(0, {"role": "system", "content": system})
            pieces = runtime.chat(messages, stream=True, **sampling)
        else:
            pieces = runtime.stream(text, **sampling)
        if as_json:
            print_json(_as_json(last_completion(pieces)))
        else:
            print_rates(last_completion(pieces, show=True))


def _read_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RequestError(f"stdin: not text: {error}", hint="give text in UTF-8") from None


def last_completion(pieces: Iterator[Piece], *, show: bool = False) -> Completion:
    """The whole of a stream; with ``show`` its text goes to stdout as it is made."""
    for piece in pieces:
        if show:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
        if piece.completion is not None:
            sys.stdout.write("\n" * show)
            return piece.completion
    raise AssertionError("a stream ends with a completion")


def print_rates(completion: Completion) -> None:
    """Tokens and tokens per second, on stderr."""
    usage = completion.usage
    err.print(
        f"[dim]prompt {usage.prompt_tokens} tokens, "
        f"{completion.prefill_tokens_per_second:.1f} tokens/s; "
        f"generated {usage.completion_tokens} tokens, "
        f"{completion.decode_tokens_per_second:.1f} tokens/s; {completion.finish_reason}[/]"
    )


def _as_json(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "tokens": completion.tokens,
        "finish_reason": completion.finish_reason,
        "usage": {
            "prompt_tokens": completion.usage.prompt_tokens,
            "completion_tokens": completion.usage.completion_tokens,
        },
        "timings": {
            "queued_seconds": completion.timings.queued,
            "prefill_seconds": completion.timings.prefill,
            "decode_seconds": completion.timings.decode,
            "prefill_tokens_per_second": completion.prefill_tokens_per_second,
            "decode_tokens_per_second": completion.decode_tokens_per_second,
        },
    }
