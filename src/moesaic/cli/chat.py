"""``moesaic chat``: a conversation in the terminal, or one message a line from a pipe."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from moesaic.cli._chat_session import ChatSession
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
from moesaic.cli._render import errors_as_messages
from moesaic.errors import RequestError
from moesaic.runtime.conversation import Conversation
from moesaic.runtime.tokenizer import Tokenizer

__all__ = ["chat"]


def chat(
    model: ModelPath,
    *,
    system: Annotated[
        str | None, typer.Option("--system", "-s", help="Instructions for the model.")
    ] = None,
    reasoning_effort: Annotated[
        str | None, typer.Option(help="low, medium or high, for models that know it.")
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Show thoughts; default: on a terminal."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", "-n", help="Tokens of a reply at most.")
    ] = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End an answer at this text; may be repeated.")
    ] = None,
    threads: Threads = None,
    context: Context = None,
    load: Annotated[
        Path | None, typer.Option(help="Go on with a conversation saved by /save.")
    ] = None,
    chat_template: Annotated[
        str | None,
        typer.Option(help="Another template: a name that the model has, or a Jinja file."),
    ] = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Keep no history of what is typed.")
    ] = False,
) -> None:
    """Chat with a model: type messages, or pipe in one a line. /help lists commands."""
    given: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": stop,
    }
    sampling = {name: value for name, value in given.items() if value is not None}
    variables = {"reasoning_effort": reasoning_effort} if reasoning_effort else {}
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with errors_as_messages(), open_runtime(model, threads=threads, context=context) as runtime:
        runtime.defaults.updated(**sampling)  # a wrong one is told before anything is typed
        _choose_template(runtime.tokenizer, chat_template)
        conversation = Conversation(runtime, system=system, template_vars=variables)
        session = ChatSession(
            runtime,
            conversation,
            sampling,
            show_thoughts=sys.stdout.isatty() if think is None else think,
            interactive=interactive,
        )
        if load is not None:
            session.command(f"/load {load}")
        session.run(_typed(history=not no_history) if interactive else _piped())


def _typed(*, history: bool) -> Iterable[str]:
    from moesaic.cli._chat_input import Typed  # loads what no other command needs

    return Typed(history=history)


def _piped() -> Iterator[str]:
    """Yields the lines of stdin, each one message; empty ones are left out."""
    try:
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"stdin: not text: {error}", hint="give text in UTF-8") from None


def _choose_template(tokenizer: Tokenizer, choice: str | None) -> None:
    """Has the tokenizer use a template of the model by name, or one in a file.

    Raises:
        RequestError: There is none to use.
    """
    named = tokenizer.chat_templates
    if choice is not None:
        tokenizer.chat_template = named[choice] if choice in named else _read_template(choice)
    if tokenizer.chat_template is None:
        names = f", which may be {' or '.join(named)}" if named else ""
        raise RequestError(
            "the model has no chat template" + (" but named ones" if named else ""),
            hint=f"choose with --chat-template{names or ' FILE'}, or continue a text with "
            "`moesaic run`",
        )


def _read_template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"{path}: cannot be read: {error}", hint="give a Jinja file, or a name the model has"
        ) from None
