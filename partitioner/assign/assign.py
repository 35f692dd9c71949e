"""The placement of a model on devices."""

from collections.abc import Callable, Mapping, Sequence

from moesaic.partitioner.assign.chain import Move, Unit, make_chain
from moesaic.partitioner.assign.draft import build_placement, layer_homes, make_units
from moesaic.partitioner.assign.fit import Option, improving, last_that_fit, options
from moesaic.partitioner.assign.footprint import Footprint
from moesaic.partitioner.assign.problem import Problem
from moesaic.partitioner.assign.report import Report
from moesaic.partitioner.assign.rules import Pin, apply_rules
from moesaic.partitioner.machine import CPU
from moesaic.partitioner.memory import CUDA_RESERVE
from moesaic.partitioner.placement import Placement

__all__ = ["assign"]

Measure = Callable[[Placement], Mapping[str, int]]


def assign(problem: Problem, measure: Measure) -> tuple[Placement, list[str]]:
    """Places every node.

    Args:
        problem: What is to be placed.
        measure: The bytes that a placement needs, by device; called a handful of times.

    Returns:
        The placement, and what is remarkable about it, in sentences. Where budgets are too small
        for what the rules demand, the placement exceeds them.

    Raises:
        PlacementError: A rule is malformed, matches nothing, or names a device that is not there.
    """
    names = [str(node.name) for node in problem.nodes]
    pins = apply_rules(problem.rules, names, [device.name for device in problem.devices])
    if all(gpu.budget is None for gpu in problem.gpus):
        return _by_rule(problem, pins), []
    return _Filling(problem, pins, measure).result()


def _by_rule(problem: Problem, pins: Mapping[str, Pin]) -> Placement:
    """Experts on the host, everything else on the GPU; on several, layers side by side."""
    nodes, why = {}, {}
    homes = _homes(problem, with_experts=False) if problem.gpus else {}
    for item in problem.tally().items:
        alone = len(problem.gpus) < 2
        host = not homes or item.kind == "experts" or (item.kind == "embed" and not alone)
        device = CPU if host else homes[item.layer]
        nodes[item.name] = device
        reason = "experts on the host" if item.kind == "experts" else "no experts, so on the GPU"
        if host and item.kind == "embed":
            reason = "the embedding on the host"
        why[item.name, device] = f"default: {reason}" if homes else "the only device"
    for name, pin in pins.items():
        nodes[name] = pin.device
        why[name, pin.device] = f"--place '{pin.rule}'"
    return Placement(nodes, {}, why)


def _homes(problem: Problem, *, with_experts: bool) -> dict[int, str]:
    """Returns the GPU of every layer: what bytes and time say in equal parts."""
    gpus = problem.gpus
    if len(gpus) == 1:
        return dict.fromkeys({-1, *(item.layer for item in problem.tally().items)}, gpus[0].name)
    tally = problem.tally()
    footprint = Footprint(tally.items, problem.tensors, problem.kv)
    sizes: dict[int, float] = {}
    times: dict[int, float] = {}
    for index, item in enumerate(tally.items):
        if item.kind != "embed" and (with_experts or item.kind != "experts"):
            size = footprint.add([index], gpus[0].name)
            sizes[item.layer] = sizes.get(item.layer, 0.0) + size
            time = tally.time_on(index, gpus[0].name).request
            times[item.layer] = times.get(item.layer, 0.0) + time
    bytes_in_all, seconds_in_all = sum(sizes.values()), sum(times.values())
    mix = {i: sizes[i] / bytes_in_all + times[i] / seconds_in_all for i in sizes}
    head = mix.pop(-1, 0.0)
    room = {gpu.name: float(max((gpu.budget or 1 << 40) - CUDA_RESERVE, 1)) for gpu in gpus}
    return layer_homes(mix, head, room)


class _Filling:
    """Fills the budgets of GPUs."""

    def __init__(self, problem: Problem, pins: Mapping[str, Pin], measure: Measure) -> None:
        self.problem, self.pins, self._measure = problem, pins, measure
        tally = problem.tally()
        footprint = Footprint(tally.items, problem.tensors, problem.kv)
        self.fixed = {gpu.name: CUDA_RESERVE for gpu in problem.gpus}
        for index, item in enumerate(tally.items):
            if item.name in pins:
                device = pins[item.name].device
                tally.move([index], device)
                if device != CPU:
                    self.fixed[device] += footprint.add([index], device)
        self.items = tally.items
        self.units = make_units(tally.items, pins, _homes(problem, with_experts=True))
        self._several = len(problem.gpus) > 1
        self.start = tally.total
        self._tally, self._footprint = tally, footprint

    def result(self) -> tuple[Placement, list[str]]:
        """Returns the placement and the notes about it."""
        chains = self._chains()
        every = self._options(chains)
        choices = every
        if not self._several:  # who names several GPUs wants them used
            choices = {name: improving(found) for name, found in every.items()}
        taken = self._fit(choices)
        if self._host_is_full(taken):
            taken = self._fit(every)
        needs = self._needs(taken)
        report = Report(self.problem.gpus, chains[0], taken, needs)
        stays = {unit: report.reason_to_stay(unit) for unit in self.units}
        return self._placement(taken, stays), report.notes()

    def _chains(self) -> list[list[Move]]:
        """Returns the orders to move in: the best one, and some that may fit a budget better.

        Those leave a large head to last, and move whole layers although a usage profile is given:
        a layer that is split hands its tokens over twice.
        """
        moving = [unit for unit in self.units if not (self._several and unit.kind == "embed")]
        by_expert = self.problem.usage is not None
        return [
            make_chain(
                moving,
                self._tally.copy(),
                self._footprint.copy(),
                by_expert=hottest,
                head_last=head_last,
            )
            for hottest in sorted({by_expert, False}, reverse=True)
            for head_last in (False, True)
        ]

    def _options(self, chains: Sequence[Sequence[Move]]) -> dict[str, list[Option]]:
        """Returns the options of each GPU, by the bytes they take."""
        if self._several:
            own = {
                gpu.name: [move for move in chains[0] if move.unit.device == gpu.name]
                for gpu in self.problem.gpus
            }
            return {name: options(chain, self.start) for name, chain in own.items()}
        found = [option for chain in chains for option in options(chain, self.start)]
        (gpu,) = self.problem.gpus
        return {gpu.name: sorted(found, key=lambda option: option.bytes)}

    def _fit(self, choices: Mapping[str, Sequence[Option]]) -> dict[str, Option]:
        budgets = {gpu.name: gpu.budget for gpu in self.problem.gpus}
        return last_that_fit(choices, budgets, self.fixed, self._needs)

    def _host_is_full(self, taken: Mapping[str, Option]) -> bool:
        host = self.problem.devices[0]
        return host.budget is not None and self._needs(taken)[host.name] > host.budget

    def _needs(self, taken: Mapping[str, Option]) -> Mapping[str, int]:
        return self._measure(self._placement(taken, {}))

    def _placement(self, taken: Mapping[str, Option], stays: Mapping[Unit, str]) -> Placement:
        moves = [move for option in taken.values() for move in option.moves]
        return build_placement(self.items, self.pins, self.units, moves, stays)
