"""What is drawn, read back from the figure."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import msgspec
import pytest
from kit.many_layers import DENSE, EXPERTS, GIB, many_layers

pytest.importorskip("matplotlib")

from moesaic.plot import plan_figure, plot_plan


def widths(axes):
    return [bar.get_width() for bar in axes.patches]


@pytest.mark.parametrize(("layers", "gpus"), [(1, 0), (2, 1), (61, 3)])
def test_bars_add_up_to_the_memory_table(layers, gpus):
    file = many_layers(layers, gpus)
    figure = plan_figure(file)
    assert len(figure.axes) == len(file.devices) + 1
    for axes, memory, device in zip(figure.axes[:-1], file.memory, file.devices, strict=True):
        assert axes.get_xlabel() == "GiB"
        assert sum(widths(axes)) == pytest.approx(memory.total / GIB)
        (line,) = axes.lines
        assert line.get_xdata()[0] == device.budget / GIB
        assert axes.get_xlim()[1] > device.budget / GIB
    embed, dense, experts, head, *_ = widths(figure.axes[0])
    assert (embed, head) == (0, 0)
    assert dense == (0 if gpus else layers * DENSE / GIB)
    assert experts * GIB <= layers * EXPERTS


def test_the_strip_shows_shares_of_split_experts():
    file = many_layers(61, 3)
    strip = plan_figure(file).axes[-1]
    heights = {}
    for bar in strip.patches:
        row = round(bar.get_y() + 0.4 - 1e-6)
        layer = round(bar.get_x() + bar.get_width() / 2)
        heights.setdefault((row if bar.get_y() > 0.5 else 0, layer), []).append(
            (bar.get_facecolor(), bar.get_height())
        )
    assert {layer for _, layer in heights} == set(range(61))
    shares = {layer: [h / 0.8 for _, h in heights[0, layer]] for layer in range(61)}
    assert shares[0] == pytest.approx([0.25, 0.75])
    assert shares[1] == shares[2] == pytest.approx([1.0])
    assert heights[0, 1][0][0] == heights[1, 1][0][0] != heights[0, 2][0][0]
    assert heights[1, 0][0][0] != heights[1, 60][0][0]


def test_a_small_plan_is_drawn_in_small_units():
    base = many_layers(1, 0)
    (memory,), (device,) = base.memory, base.devices
    small = dict.fromkeys(("weights", "kv", "activations", "staging", "reserve"), 3 << 20)
    file = msgspec.structs.replace(
        base,
        memory=[msgspec.structs.replace(memory, total=15 << 20, **small)],
        devices=[msgspec.structs.replace(device, budget=None)],
    )
    axes = plan_figure(file).axes[0]
    assert axes.get_xlabel() == "MiB"
    assert not axes.lines
    assert "15.00 MiB" in axes.get_title(loc="left")


@pytest.mark.parametrize("name", ["a$b$c", "\\alpha_{", "漢字 \U0001f600", "x\x1b\n$" * 99, ""])
def test_any_name_can_be_drawn(tmp_path, name):
    base = many_layers(2, 1)
    file = msgspec.structs.replace(base, model=msgspec.structs.replace(base.model, name=name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_plan(file, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").stat().st_size > 10_000


def test_drawing_needs_no_pyplot_and_no_screen(tmp_path):
    code = (
        "import pathlib, sys; from kit.many_layers import many_layers; from moesaic import plot; "
        f"plot.plot_plan(many_layers(2, 1), pathlib.Path({str(tmp_path)!r}, 'plan.PNG')); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path})
    assert (tmp_path / "plan.PNG").read_bytes().startswith(b"\x89PNG")
