"""``moesaic inspect``: what a plan or a model file holds, and where its nodes run."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesaic.cli._render import (
    errors_as_messages,
    note,
    out,
    print_json,
    progress_bar,
    size,
)
from moesaic.cli._report import (
    plan_summary,
    print_plan,
    print_program,
    print_tensors,
    print_why,
    reasons,
    select,
    why_rows,
    write_plot,
)
from moesaic.errors import ModelError, RequestError
from moesaic.plan_file import read_plan
from moesaic.plan_format import PlanFile

if TYPE_CHECKING:
    from moesaic.plan_verify import Verified

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PLAN|MODEL", help="A plan directory or a GGUF file.")
    ],
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="REGEX",
            help="Choose nodes (--why, which it implies; --program) or --tensors by name.",
        ),
    ] = None,
    *,
    why: Annotated[
        bool, typer.Option("--why", help="Say why nodes run where they run; one by one with REGEX.")
    ] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List the tensors.")] = False,
    program: Annotated[bool, typer.Option("--program", help="List the steps of the plan.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every hash; reads all of the plan.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw memory and placement into a .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the facts, and what else is asked for, as JSON.")
    ] = False,
) -> None:
    """Show facts, memory per device and placement of a plan, or what a model file holds.

    A model file is shown as it is, with the plan that default options would make of it. With
    options that ask for something in particular, only that is shown.
    """
    wanted = _Wanted(pattern, why, tensors, program, verify, plot, as_json)
    with errors_as_messages():
        select(pattern)
        if os.path.isdir(path):
            _inspect_plan(path, wanted)
        elif verify:
            raise RequestError(
                f"{path}: a model file has no hashes to verify",
                hint="partition it; --verify checks a plan",
            )
        else:
            _inspect_model(path, wanted)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The options of the command."""

    pattern: str | None
    why: bool
    tensors: bool
    program: bool
    verify: bool
    plot: Path | None
    as_json: bool

    @property
    def nodes(self) -> bool:
        """Whether reasons are asked for, in words or by a pattern alone."""
        return self.why or (self.pattern is not None and not (self.tensors or self.program))

    @property
    def in_particular(self) -> bool:
        """Whether something other than the whole report is asked for."""
        return self.nodes or self.tensors or self.program or self.verify or self.plot is not None


def _inspect_plan(path: Path, wanted: _Wanted) -> None:
    file = read_plan(path)
    verified = _verify(path) if wanted.verify else None
    if wanted.plot:
        write_plot(file, wanted.plot)
    if wanted.as_json:
        summary = plan_summary(file) | _lists(file, wanted)
        if wanted.tensors:
            summary["tensors"] = [t for t in file.tensors if select(wanted.pattern)(t.name)]
        print_json(summary | ({"verified": verified} if verified else {}))
        return
    if verified:
        out.print(
            f"verified: {verified.tensors} tensors, {size(verified.weights_bytes)} of weights.bin, "
            f"{size(verified.model_bytes)} of model.onnx"
        )
    if wanted.tensors:
        print_tensors(file, wanted.pattern)
    _print_lists(file, wanted)
    if not wanted.in_particular:
        print_plan(file)


def _inspect_model(path: Path, wanted: _Wanted) -> None:
    from moesaic.cli._model_facts import check_support, model_summary, tensor_rows
    from moesaic.cli._model_report import print_model, print_model_tensors
    from moesaic.partitioner.gguf import read_gguf

    gguf = read_gguf(path)
    support = check_support(gguf)
    plan = support.plan
    if plan is None and (wanted.nodes or wanted.program or wanted.plot):
        raise ModelError(f"there is no plan to show: {support.problem}", hint=support.hint)
    if plan and wanted.plot:
        write_plot(plan, wanted.plot)
    if wanted.as_json:
        summary = model_summary(gguf, support) | (_lists(plan, wanted) if plan else {})
        if wanted.tensors:
            summary["tensors"] = tensor_rows(gguf, select(wanted.pattern))
        print_json(summary)
        return
    if wanted.tensors:
        print_model_tensors(gguf, wanted.pattern)
    if plan:
        _print_lists(plan, wanted)
    if not wanted.in_particular:
        print_model(gguf, support)


def _verify(path: Path) -> "Verified":
    from moesaic.plan_verify import verify_plan

    start = time.perf_counter()
    with progress_bar("verifying") as progress:
        verified = verify_plan(path, progress)
    seconds = time.perf_counter() - start
    note(f"{verified.weights_bytes / 1e9 / seconds:.2f} GB/s in {seconds:.1f} s")
    return verified


def _lists(file: PlanFile, wanted: _Wanted) -> dict[str, Any]:
    """The lists that are asked for, for ``--json``."""
    lists: dict[str, Any] = {}
    if wanted.nodes:
        lists["why"] = why_rows(reasons(file, wanted.pattern))
    if wanted.program:
        matches = select(wanted.pattern)
        lists["program"] = [step for step in file.program if any(map(matches, step.nodes))]
    return lists


def _print_lists(file: PlanFile, wanted: _Wanted) -> None:
    if wanted.nodes:
        rows = reasons(file, wanted.pattern)
        print_why(rows, grouped=wanted.pattern is None)
        if not rows:
            note(f"no node matches {wanted.pattern!r}")
    if wanted.program:
        print_program(file, wanted.pattern)
