"""`moesaic.Runtime`: opens a plan, or a model file by way of the plan cache."""

import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

from moesaic.plan_cache import Wishes, cached_plan
from moesaic.runtime.runtime import Runtime as PlanRuntime
from moesaic.runtime.runtime import limit_option

__all__ = ["Runtime"]


class Runtime(PlanRuntime):
    """An open plan, or an open model file.

    A GGUF file is partitioned into the cache folder (`$MOESAIC_CACHE`, or `moesaic` in the
    platform's cache folder), which stderr announces; from then on it opens as fast as a plan.

    Several threads may use one runtime; their requests share its steps. On the CPU a request's
    result does not depend on the number of threads, the batch, or what else is running.

    Args:
        plan: A plan directory written by ``partition``, or a GGUF file.
        threads: CPU threads; by default the cores this process may use.
        context: Tokens of one sequence. It may lower a plan's limit, as may ``sequences`` and
            ``batch``; for a GGUF file it may be what the model was trained for, default 8192.
        sequences: Sequences live at once; further prompts wait their turn.
        batch: Tokens of one step.
        record_usage: Count which experts tokens choose, for `usage`.
        progress: Called with (bytes done, bytes in all) while a GGUF file is partitioned.

    Raises:
        ModelError: The model file is malformed or not supported.
        PlacementError: The model does not fit this machine.
        PlanError: The directory is not a plan, is damaged, or does not fit the options; or the
            cache folder cannot be written.
        DeviceError: The plan needs a device that is not here.
    """

    def __init__(
        self,
        plan: str | os.PathLike[str],
        *,
        threads: int | None = None,
        context: int | None = None,
        sequences: int | None = None,
        batch: int | None = None,
        record_usage: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        path = Path(plan)
        if not _is_model(path):
            super().__init__(
                path,
                threads=threads,
                context=context,
                sequences=sequences,
                batch=batch,
                record_usage=record_usage,
            )
            return
        for name, value in (("context", context), ("sequences", sequences), ("batch", batch)):
            limit_option(name, value)
        wishes = Wishes(context, sequences, batch)
        cached = cached_plan(path, wishes, announce=_announce, progress=progress)
        self._release = weakref.finalize(self, os.close, cached.lease)
        try:
            super().__init__(
                cached.folder,
                threads=threads,
                context=cached.limits.context,
                sequences=cached.limits.sequences,
                batch=cached.limits.batch,
                record_usage=record_usage,
            )
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        """Free all memory; the runtime cannot be used after."""
        super().close()
        if hasattr(self, "_release"):
            self._release()


def _is_model(path: Path) -> bool:
    """Whether a path is a model file, or is meant to be one."""
    return os.path.isfile(path) or (path.suffix == ".gguf" and not os.path.isdir(path))


def _announce(message: str) -> None:
    sys.stderr.write(f"moesaic: {message}\n")
    sys.stderr.flush()
