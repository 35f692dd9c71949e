"""Draws a plan: the memory of every device, and what holds attention and experts of each layer.

matplotlib is imported when something is drawn. Figures are made without its global state, so that
drawing is possible from any thread and leaves a notebook's settings alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moesaic.errors import MoesaicError, RequestError
from moesaic.plan_facts import CLASSES, class_of, experts_by_layer, layer_of, weights_by_class
from moesaic.plan_format import Memory, PlanFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "check_target", "plan_figure", "plot_plan"]

SUFFIXES: Final = (".png", ".svg", ".pdf")

# The palette of Okabe and Ito, made to be told apart with any kind of colour vision; the parts
# that are not weights are hatched as well, so that they differ in print.
_PARTS: Final = (
    ("embed", "#56B4E9", ""),
    ("dense", "#0072B2", ""),
    ("experts", "#E69F00", ""),
    ("head", "#009E73", ""),
    ("KV cache", "#CC79A7", "//"),
    ("activations", "#F0E442", "\\\\"),
    ("staging", "#D55E00", "xx"),
    ("reserve", "#BBBBBB", ".."),
)
# Devices take other colours than parts: grey for the host, then the muted palette of Paul Tol.
_DEVICES: Final = ("#DDDDDD", "#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#AA4499")
_ROWS: Final = ("experts", "attention, dense")
_MAX_TITLE_CHARS: Final = 80
_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def plot_plan(file: PlanFile, path: Path) -> None:
    """Draws a plan into a file.

    Args:
        file: The plan.
        path: Where to; the suffix, one of `SUFFIXES`, decides the format.

    Raises:
        RequestError: The suffix is another one.
        MoesaicError: matplotlib is missing, or the file cannot be written.
    """
    check_target(path)
    figure = plan_figure(file)
    try:
        figure.savefig(path, format=path.suffix[1:].lower())
    except OSError as error:
        raise MoesaicError(
            f"{path}: cannot be written: {error.strerror}",
            hint="check the path and its permissions",
        ) from error


def check_target(path: Path) -> None:
    """Raises what `plot_plan` would raise before it draws: a wrong suffix, or no matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(
            f"{path}: plots are written as {', '.join(SUFFIXES)}, not as {path.suffix or 'that'!r}",
            hint="name the file for instance memory.png",
        )
    _figure_class()


def plan_figure(file: PlanFile) -> "Figure":
    """Returns the figure: a bar for each device, below them a strip of layers.

    Raises:
        MoesaicError: matplotlib is missing.
    """
    figure_class = _figure_class()
    devices = len(file.memory)
    heights = [1.0] * devices + [1.6]
    figure: Figure = figure_class(
        figsize=(11, 1.6 + 1.1 * sum(heights)), dpi=120, layout="constrained"
    )
    *bars, strip = figure.subplots(devices + 1, 1, height_ratios=heights, squeeze=False)[:, 0]
    classes = weights_by_class(file)
    budgets = {device.name: device.budget for device in file.devices}
    for axes, memory in zip(bars, file.memory, strict=True):
        _draw_bar(axes, memory, classes.get(memory.device, {}), budgets.get(memory.device))
    _draw_strip(strip, file)
    figure.suptitle(_title(file), fontsize=12, parse_math=False)
    _add_legend(figure, file.memory)
    return figure


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MoesaicError(
            f"plots are drawn with matplotlib, which cannot be imported: {error}",
            hint="pip install 'moesaic[plot]'",
        ) from None
    return Figure


def _draw_bar(axes: "Axes", memory: Memory, classes: dict[str, int], budget: int | None) -> None:
    """Draws one device. Each has an axis of its own: a host may be fifty times as large."""
    weights = [classes.get(name, 0) for name in CLASSES]
    sizes = [*weights, memory.kv, memory.activations, memory.staging, memory.reserve]
    most = max(memory.total, budget or 0)
    factor, unit = next((f, u) for f, u in _UNITS if most >= f or f == 1)
    left = 0.0
    for (_, colour, hatch), count in zip(_PARTS, sizes, strict=True):
        width = count / factor
        axes.barh(
            [0], [width], left=left, height=0.7, color=colour, hatch=hatch, edgecolor="#333333",
            linewidth=0.4,
        )  # fmt: skip
        left += width
    used = f"{memory.device}: {memory.total / factor:.2f} {unit}"
    if budget is not None:
        axes.axvline(budget / factor, color="black", linewidth=2, linestyle="--")
        used += (
            f" of a budget of {budget / factor:.2f} {unit} ({100 * memory.total / budget:.0f} %)"
        )
    axes.set_title(used, loc="left", fontsize=10, parse_math=False)
    axes.set_xlim(0, 1.03 * most / factor if most else 1)
    axes.set_yticks([])
    axes.set_xlabel(unit, fontsize=9)
    axes.tick_params(labelsize=9)


def _draw_strip(axes: "Axes", file: PlanFile) -> None:
    """Draws two cells a layer; a cell shared by devices is divided by their shares."""
    colours = _device_colours(file)
    experts, dense = experts_by_layer(file), _dense_by_layer(file)
    layers = sorted({*experts, *dense})
    for row, cells in enumerate((experts, dense)):
        for layer, shares in cells.items():
            bottom = row - 0.4
            for device, share in shares.items():
                axes.bar(
                    [layer], [0.8 * share], bottom=bottom, width=0.9,
                    color=colours.get(device, "white"), edgecolor="#333333", linewidth=0.4,
                )  # fmt: skip
                bottom += 0.8 * share
    axes.set_title("Placement by layer", loc="left", fontsize=10)
    axes.set_yticks(range(len(_ROWS)), _ROWS, fontsize=9)
    axes.set_ylim(-0.6, len(_ROWS) - 0.4)
    axes.set_xlim(-0.6, max(layers, default=0) + 0.6)
    step = -(-len(layers) // 32)
    axes.set_xticks(layers[:: max(step, 1)])
    axes.tick_params(labelsize=9, length=2)
    axes.set_xlabel("layer", fontsize=9)
    handles = [_patch(colour) for colour in colours.values()]
    axes.legend(
        handles, colours.keys(), loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9,
        frameon=False, title="device", title_fontsize=9,
    )  # fmt: skip


def _dense_by_layer(file: PlanFile) -> dict[int, dict[str, float]]:
    """Returns the share of each layer's dense weights that a device holds."""
    sums: dict[int, dict[str, int]] = {}
    for row in file.assignment:
        layer = layer_of(row.node)
        if layer is not None and class_of(row.node) == "dense":
            devices = sums.setdefault(layer, {})
            devices[row.device] = devices.get(row.device, 0) + row.weight_bytes
    return {
        layer: {device: n / sum(devices.values()) for device, n in devices.items() if n}
        for layer, devices in sorted(sums.items())
    }


def _device_colours(file: PlanFile) -> dict[str, str]:
    return {device.name: _DEVICES[i % len(_DEVICES)] for i, device in enumerate(file.devices)}


def _add_legend(figure: "Figure", memory: Sequence[Memory]) -> None:
    """Explains the parts of the bars, and the line of the budget."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [_patch(colour, hatch) for _, colour, hatch in _PARTS]
    handles.append(Line2D([], [], color="black", linewidth=2, linestyle="--"))
    names = [name if i > 3 else f"weights: {name}" for i, (name, _, _) in enumerate(_PARTS)]
    figure.legend(
        handles, [*names, "budget"], loc="outside lower center", ncols=5, fontsize=9, frameon=False
    )


def _patch(colour: str, hatch: str = "") -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor="#333333", linewidth=0.4, hatch=hatch)


def _title(file: PlanFile) -> str:
    """Returns the title, in characters that the font has: others would be boxes and warnings."""
    from matplotlib.font_manager import findfont, get_font

    limits = file.limits
    text = (
        f"{file.model.name[:_MAX_TITLE_CHARS]} ({file.model.architecture}): context "
        f"{limits.context}, sequences {limits.sequences}, batch {limits.batch}"
    )
    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(c if c.isprintable() and ord(c) in known else "?" for c in text)
