"""``partition``: a model file, or an existing plan, becomes a plan directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import moesaic
from moesaic.cli._render import (
    errors_as_messages,
    note,
    print_facts,
    print_json,
    progress_bar,
    size,
    write_any_text,
)
from moesaic.cli._report import check_plot, plan_summary, print_plan, write_plot
from moesaic.cuda import why_not_cuda
from moesaic.errors import PlanError

if TYPE_CHECKING:
    from moesaic.partitioner import Plan

__all__ = ["main", "partition"]


def partition(
    model: Annotated[Path, typer.Argument(help="A GGUF file, or a plan directory to place anew.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The plan directory to write.")
    ] = None,
    *,
    devices: Annotated[
        str | None, typer.Option(help="Devices and budgets, such as `cpu,cuda:0=24GiB`.")
    ] = None,
    vram: Annotated[
        str | None, typer.Option(help="Bytes to use on CUDA devices, such as 8GiB.")
    ] = None,
    ram: Annotated[str | None, typer.Option(help="Bytes to use on the host.")] = None,
    place: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX=DEVICE",
            help="Put nodes whose name matches on a device; may be repeated, the last match wins. "
            "An empty one drops those of an existing plan.",
        ),
    ] = None,
    usage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A profile from `run --record-usage`: the most used experts go to the GPU first. "
            "Empty drops that of an existing plan.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(help="Tokens of one sequence; default what was trained, at most 8192."),
    ] = None,
    sequences: Annotated[
        int | None, typer.Option(help="Sequences live at once; default 8.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Tokens of one step (the prefill chunk); default 512.")
    ] = None,
    kv_type: Annotated[
        str | None, typer.Option(help="KV cache type: f16 (default), f32, bf16 or q8_0.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan and report, write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw memory and placement into a .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Partition a GGUF model into a plan directory, or place an existing plan anew."""
    with errors_as_messages():
        if output is None and not dry_run and not model.is_dir():
            raise PlanError(
                "no output directory given", hint="add `-o plan/`, or --dry-run to only look"
            )
        if plot:
            check_plot(plot)
        with progress_bar("packing") as progress:
            plan = moesaic.partition(
                model,
                output,
                devices=devices,
                vram=vram,
                ram=ram,
                context=context,
                sequences=sequences,
                batch=batch,
                kv_type=kv_type,
                place=place or None,
                usage=usage,
                dry_run=dry_run,
                force=force,
                progress=progress,
            )
        if plot:
            write_plot(plan.file, plot)
        if as_json:
            disk = {"disk_bytes": plan.disk_bytes, "disk_free": plan.disk_free}
            print_json(plan_summary(plan.file) | (disk if dry_run else {}))
            return
        print_plan(plan.file)
        if dry_run:
            print_facts([("disk", _disk(plan))])
        else:
            _say_what_was_written(plan)


def _disk(plan: "Plan") -> str:
    """What writing the plan would take."""
    if plan.disk_bytes is None:
        return "only plan.json is to be replaced"
    free = "" if plan.disk_free is None else f", {size(plan.disk_free)} are free there"
    return f"{size(plan.disk_bytes)} are to be written{free}"


def _what_next(plan: "Plan") -> str:
    gpus = [device.name for device in plan.file.devices if device.name != "cpu"]
    missing = why_not_cuda() if gpus else None
    if missing is None:
        return f"try: moesaic run {plan.path} 'Once upon a time'"
    return (
        f"it needs {', '.join(gpus)}, and {missing}: run it where there is one, or place it on the "
        f"CPU with: moesaic partition {plan.path} --devices cpu"
    )


def _say_what_was_written(plan: "Plan") -> None:
    from moesaic.partitioner.plan.card import is_edited

    if plan.path and is_edited(plan.path):
        note("kept README.md, which was edited; `moesaic card --force` writes a new one")
    note(f"wrote {plan.path}; {_what_next(plan)}")


def main() -> None:
    """Entry point of the ``partition`` script."""
    write_any_text()
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(partition)
    app()
