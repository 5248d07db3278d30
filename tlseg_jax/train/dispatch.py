"""What goes to the device in one call: one training step or several, on batches that were sent or that lie there."""

from collections.abc import Sequence

import jax
import numpy as np

from tlseg_jax.input.device_cache import DeviceCache
from tlseg_jax.train.device_memory import free_ram
from tlseg_jax.train.state import TrainState
from tlseg_jax.train.step import Batch, Step

Metrics = dict[str, jax.Array]


class Dispatch:
    """Training steps as programs for the device: one of a single step and one of `most` steps.

    Two programs and not one a length: the few steps that are left over before a checkpoint go one by one, so that
    no other length is ever compiled. Several steps are a `lax.scan`, in which the host takes no part.
    """

    def __init__(self, step: Step, most: int = 1, cache: DeviceCache | None = None) -> None:
        """Take `step` for batches of the stream, or, with a `cache`, for the places of its samples.

        Args:
          step: from `make_train_step`.
          most: steps in a call; 1 or more.
          cache: the data set on the device.
        """
        self.most = most
        self._cached = cache is not None
        # Arguments of the programs: held by them as constants, they would be copied and folded.
        self._arrays = cache.arrays if cache else {}

        def one(state: TrainState, batch: Batch, arrays: Batch) -> tuple[TrainState, Metrics]:
            return step(state, cache.gather(arrays, batch) if cache else batch)

        def several(state: TrainState, batches: Batch, arrays: Batch) -> tuple[TrainState, Metrics]:
            return jax.lax.scan(lambda s, b: one(s, b, arrays), state, batches)

        # The state that goes in is given away, so that there is never a second one on the device.
        cut = jax.jit(one, donate_argnums=0)
        self._single: Step = (lambda state, places: cut(state, places, self._arrays)) if cache else step
        self._several = jax.jit(several, donate_argnums=0)

    def length(self, left: int) -> int:
        """Steps of the next call where `left` may be done before the host has to look."""
        return self.most if left >= self.most else 1

    def __call__(self, state: TrainState, batches: Sequence[Batch]) -> tuple[TrainState, Metrics]:
        """Do 1 or `most` steps; returns before the device is done.

        Args:
          state: given away.
          batches: as the stream gives them, one a step.

        Returns:
          The state after the last, and the metrics of each: scalars of a single step, else (steps,).
        """
        wanted = [{k: v for k, v in b.items() if self._cached or k != "index"} for b in batches]
        if len(wanted) == 1:
            return self._single(state, wanted[0])
        stacked = {k: np.stack([b[k] for b in wanted]) for k in wanted[0]}
        return self._several(state, stacked, self._arrays)  # type: ignore[no-any-return]


def cache_room(step: int = 0) -> int:
    """Bytes that a data set may take on the device besides a training step that needs `step` bytes.

    On a CPU half of the memory that is free: the data set is read into RAM before its copy for the device is made.
    """
    device = jax.local_devices()[0]
    stats = (device.memory_stats() if device.platform != "cpu" else None) or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0)) - step
    return (free_ram() - step) // 2
