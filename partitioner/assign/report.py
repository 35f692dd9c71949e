"""Says what filling the budgets came to: why units stayed on the host, and what that costs."""

from collections.abc import Iterator, Mapping, Sequence

from moesaic.partitioner.assign.chain import Move, Unit
from moesaic.partitioner.assign.fit import Option
from moesaic.partitioner.machine import DeviceSpec
from moesaic.partitioner.memory import CUDA_RESERVE
from moesaic.units import size

__all__ = ["Report"]

_NO_GAIN = "copies would cost more than they save there"
_DENSE = ("dense", "head")


class Report:
    """The outcome of filling budgets.

    Args:
        gpus: The GPUs.
        chain: All moves that could be made.
        taken: What was moved to each GPU.
        needs: Bytes that each device then needs.
    """

    def __init__(
        self,
        gpus: Sequence[DeviceSpec],
        chain: Sequence[Move],
        taken: Mapping[str, Option],
        needs: Mapping[str, int],
    ) -> None:
        self._gpus, self._chain, self._taken, self._needs = gpus, chain, taken, needs
        self._sizes: dict[Unit, int] = {}
        for move in reversed(chain):
            self._sizes[move.unit] = move.bytes

    def reason_to_stay(self, unit: Unit) -> str:
        """Returns why a unit that did not move stayed on the host."""
        short = self._short(unit)
        return f"budget: {size(short)} short" if short > 0 else f"budget: {_NO_GAIN}"

    def notes(self) -> list[str]:
        """Returns what is remarkable, in sentences."""
        return [note for gpu in self._gpus for note in self._notes(gpu)]

    def _notes(self, gpu: DeviceSpec) -> Iterator[str]:
        own = [move for move in self._chain if move.unit.device == gpu.name]
        made = {move.unit for move in self._taken[gpu.name].moves}
        dense = [move for move in own if move.unit.kind in _DENSE]
        left = [move for move in dense if move.unit not in made]
        if gpu.name not in self._needs:
            yield f"{gpu.name}: nothing is placed there; {self._obstacle(gpu, own)}"
        if left and gpu.budget is not None:
            missing = sum(move.bytes for move in left) - self._free(gpu)
            yield (
                f"{gpu.name}: {len(left)} of {len(dense)} parts of the model besides its experts "
                f"stay on the CPU{self._price(dense)}; "
                + (f"{size(missing)} more vram would hold them" if missing > 0 else _NO_GAIN)
            )

    def _price(self, dense: Sequence[Move]) -> str:
        """Returns what the missing dense parts cost, if the chain has a link with all of them."""
        full = max(dense, key=lambda move: self._chain.index(move)).after
        if len(self._gpus) > 1:
            return ""
        (now,) = (option.after for option in self._taken.values())
        slower = now.decode - full.decode
        if slower <= 0:
            return ""
        return (
            f", which costs {slower * 1e3:.3g} ms a token "
            f"(predicted are {1 / now.decode:.3g} instead of {1 / full.decode:.3g} tokens/s)"
        )

    def _obstacle(self, gpu: DeviceSpec, own: Sequence[Move]) -> str:
        smallest = min((move.bytes for move in own), default=0)
        if gpu.budget is None or not own:
            return "nothing may be, or gains by it"
        if self._free(gpu) < smallest:
            reserve = size(gpu.budget - self._free(gpu))
            return (
                f"the driver takes {reserve}, the smallest part of the model {size(smallest)}, "
                f"and the budget is {size(gpu.budget)}"
            )
        return "no part of the model that fits would make it faster"

    def _short(self, unit: Unit) -> float:
        gpu = next(gpu for gpu in self._gpus if gpu.name == unit.device)
        if gpu.budget is None or unit not in self._sizes:
            return 0
        return self._sizes[unit] - self._free(gpu)

    def _free(self, gpu: DeviceSpec) -> int:
        """Returns the bytes of a GPU's budget that are left."""
        assert gpu.budget is not None
        return gpu.budget - self._needs.get(gpu.name, CUDA_RESERVE)
