"""A training step on several devices, as one jitted step is: called, traced, lowered."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax

from tlseg_jax.train.parallel import Parallel

Whole = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


class ParallelStep:
    """(state, this process's rows of a batch) -> (state, metrics), both whole on every device."""

    def __init__(self, whole: Whole, part: Whole, parallel: Parallel) -> None:
        """Take a step.

        Args:
          whole: of `make_step_function` for `parallel`; of "pmap" it sees a device's rows, of "mesh" the whole batch.
          part: what a single device does with its part, for counting memory by the trace.
        """
        self.whole, self.parallel, self._part = whole, parallel, part
        self._program = parallel.compile(lambda state, batch, arrays: whole(state, batch))

    def __call__(self, state: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
        """Do one step; the state is given away."""
        out = self._program(self.parallel.replicate(state), self.parallel.split(batch), {})
        return jax.block_until_ready(out) if self.parallel.waits else out  # type: ignore[no-any-return]

    def lower(self, state: Any, batch: Any) -> Any:
        """As `jax.jit`'s, for arrays or shapes of a state and of a global batch."""
        return self._program.lower(state, self.parallel.split_shapes(batch), {})

    def trace(self, state: Any, batch: Any) -> Any:
        """As `jax.jit`'s, for arrays or shapes of a state and of a global batch.

        Its `jaxpr` is what one device does with its part of the batch, halos left out; what it lowers is all of it.
        """
        environment = [(self.parallel.axis, self.parallel.data)] if self.parallel.axis else []
        traced = jax.make_jaxpr(self._part, axis_env=environment)(state, self.parallel.device_shapes(batch))
        return types.SimpleNamespace(jaxpr=traced, lower=functools.partial(self.lower, state, batch))
