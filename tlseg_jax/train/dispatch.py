"""What goes to the device in one call: one training step or several, on batches that were sent or that lie there."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.runtime.device_memory import free_ram
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.parallel import ONE, Parallel
from tlseg_jax.train.step import Batch, Step, whole_step

Metrics = dict[str, jax.Array]


class SampleCache(Protocol):
    """A data set on the device, of samples or of features."""

    @property
    def arrays(self) -> Any:
        """What lies there."""

    @property
    def gather(self) -> Callable[..., Batch]:
        """(arrays, picks, seed, step, first=0) -> batch, or its part from the sample `first` on.

        Equal for caches that gather alike, so that programs are shared.
        """


@dataclasses.dataclass(frozen=True)
class StagedStep:
    """A step of one stage of the training.

    Attributes:
      step: from `make_train_step`.
    """

    last: int
    step: Step


class Dispatch:
    """Training steps as programs for the device: one of a single step and one of `most` steps.

    Two programs and not one a length: the few steps that are left over before a checkpoint go one by one, so that
    no other length is ever compiled. Several steps are a `lax.scan`, in which the host takes no part.
    """

    def __init__(
        self,
        step: Step | Sequence[StagedStep],
        most: int = 1,
        cache: SampleCache | None = None,
        programs: Programs | None = None,
        runs: int = 0,
        parallel: Parallel = ONE,
    ) -> None:
        """Take `step` for batches of the stream, or, with a `cache`, for the picks of its samples.

        Args:
          step: from `make_train_step`, or one a stage of the training, in order.
          most: steps in a call; 1 or more.
          programs: where what is compiled is kept for others.
          runs: do so many runs at once, each array of states, batches and cache with a leading axis for them; 0: one.
        """
        self.parallel = parallel
        self.most = most
        self._stages = [StagedStep(1 << 62, step)] if callable(step) else list(step)
        self._cached = cache is not None
        # Arguments of the programs: held by them as constants, they would be copied and folded.
        self._arrays = parallel.replicate(cache.arrays) if cache else {}
        gather = cache.gather if cache else None
        kept = programs or Programs()
        self._programs = [
            kept.get(("dispatch", s.step, gather, runs), lambda s=s: _compile(s.step, gather, runs, parallel))  # type: ignore[misc]
            for s in self._stages
        ]

    def stage(self, done: int) -> int:
        """Which stage the step after `done` steps belongs to, from 0."""
        return next((i for i, s in enumerate(self._stages) if done < s.last), len(self._stages) - 1)

    def length(self, left: int, done: int = 0) -> int:
        """Steps of the next call where `left` may be done before the host has to look, after `done` steps."""
        left = min(left, max(self._stages[self.stage(done)].last - done, 1))
        return self.most if left >= self.most else 1

    def __call__(self, state: TrainState, batches: Sequence[Batch], done: int = 0) -> tuple[TrainState, Metrics]:
        """Do 1 or `most` steps; returns before the device is done (but see `Parallel.waits`).

        Args:
          state: given away; host arrays, or any device's, are brought to where the program wants them.
          batches: as the stream gives them, one a step: this process's rows.
          done: steps before these, by which the stage goes.

        Returns:
          The state after the last, and the metrics of each: scalars of a single step, else (steps,). All lie whole on
          every device, and `np.asarray` takes them on every process.
        """
        state = self.parallel.replicate(state)
        single, several = self._programs[self.stage(done)]
        wanted = [{k: v for k, v in b.items() if self._cached or k != "index"} for b in batches]
        if len(wanted) == 1:
            out = single(state, self.parallel.split(wanted[0]), self._arrays)
        else:
            stacked = {k: np.stack([b[k] for b in wanted]) for k in wanted[0]}
            out = several(state, self.parallel.split(stacked, lead=1), self._arrays)
        return jax.block_until_ready(out) if self.parallel.waits else out  # type: ignore[no-any-return]


Program = Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]


def _compile(step: Step, gather: Callable[..., Batch] | None, runs: int, parallel: Parallel) -> tuple[Program, Program]:
    """The program of one step and that of several."""
    # Scanned with what gathers its batch, or with other runs, a step in two is one.
    inner = whole_step(step)

    def one(state: TrainState, batch: Batch, arrays: Any) -> tuple[TrainState, Metrics]:
        if gather is None:
            return inner(state, batch)
        rows = jax.tree.leaves(batch)[0].shape[0]
        first = [jax.lax.axis_index(parallel.axis) * rows] if parallel.axis else []
        return inner(state, gather(arrays, batch, state.seed, state.step, *first))

    at_once = jax.vmap(one) if runs else one

    def several(state: TrainState, batches: Batch, arrays: Any) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda s, b: at_once(s, b, arrays), state, batches)

    if parallel.way != "one":
        return parallel.compile(one), parallel.compile(several, lead=1)
    # The state that goes in is given away, so that there is never a second one on the device.
    alone = jax.jit(jax.vmap(inner), donate_argnums=0) if runs else step
    if gather is None:
        return (lambda state, batch, _: alone(state, batch)), jax.jit(several, donate_argnums=0)
    # A program of its own: its arrays are as long as there are scans, and a step is the same for any number of them.
    pick = jax.jit(jax.vmap(gather) if runs else gather)

    def single(state: TrainState, picks: Batch, arrays: Any) -> tuple[TrainState, Metrics]:
        return alone(state, pick(arrays, picks, state.seed, state.step))

    return single, jax.jit(several, donate_argnums=0)


def cache_room(step: int = 0) -> int:
    """Bytes that a data set may take on the device besides a training step that needs `step` bytes.

    On a CPU half of the memory that is free: the data set is read into RAM before its copy for the device is made.
    """
    device = jax.local_devices()[0]
    stats = (device.memory_stats() if device.platform != "cpu" else None) or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0)) - step
    return (free_ram() - step) // 2
