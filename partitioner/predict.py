"""What the cost model says of a placement: times by node and device, and tokens a second."""

from collections import defaultdict
from collections.abc import Sequence

from moesaic.partitioner.assign import Problem
from moesaic.partitioner.cost import Seconds, weight_bytes
from moesaic.partitioner.machine import CPU
from moesaic.partitioner.placement import Placement
from moesaic.partitioner.tally import Tally
from moesaic.plan_format import Assignment, DeviceSeconds, Prediction

__all__ = ["assignment_table", "placed_tally", "prediction"]


def placed_tally(problem: Problem, placement: Placement) -> Tally:
    """Returns the tally of a placement."""
    tally = problem.tally()
    for index, item in enumerate(tally.items):
        owned = placement.owned.get(item.name)
        if owned and len(owned) > 1:
            tally.split(index, owned, placement.nodes[item.name])
        else:
            tally.move([index], next(iter(placement.devices(item.name))))
    return tally


def assignment_table(tally: Tally, placement: Placement) -> list[Assignment]:
    """Returns the plan's table: one row a node, or one a device for a node that is split."""
    rows = []
    for index, item in enumerate(tally.items):
        for device, share in tally.parts(index).items():
            time = tally.part(index, device)
            row = Assignment(
                node=item.name,
                device=device,
                weight_bytes=round(share * weight_bytes(item.node)),
                decode_seconds=time.decode,
                prefill_seconds=time.prefill,
                why=placement.why.get((item.name, device), ""),
            )
            rows.append(row)
    return rows


def prediction(tally: Tally, notes: Sequence[str]) -> Prediction:
    """Returns the speed that the cost model expects of a tally's placement."""
    devices: dict[str, Seconds] = defaultdict(Seconds)
    count, copying = 0, Seconds()
    for index in range(len(tally.items)):
        for device in tally.parts(index):
            devices[device] += tally.part(index, device)
        for copies, time in (tally.copies(index), tally.split_copies(index)):
            count, copying = count + copies, copying + time
    loads = tally.loads
    return Prediction(
        context=loads.decode.context,
        chunk=loads.prefill.rows,
        decode_tokens_per_second=loads.decode.rows / tally.total.decode,
        prefill_tokens_per_second=loads.prefill.rows / tally.total.prefill,
        handovers=count + (tally.where[-1] != CPU),
        handover_decode_seconds=copying.decode,
        handover_prefill_seconds=copying.prefill,
        devices=[DeviceSeconds(name, time.decode, time.prefill) for name, time in devices.items()],
        notes=list(notes),
    )
