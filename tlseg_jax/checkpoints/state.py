"""What training carries from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """A PyTree of everything that a step reads and writes.

    Attributes:
      step: steps done, int32 scalar.
      params: the whole network, trained and frozen.
      batch_stats: running averages of the batch norms.
      opt_state: of the optimiser; moments for the trained part only.
      seed: of the augmentation and the dropout; data, so that runs that differ in it share one program.
      average: {"params", "batch_stats"} averaged over the steps, where they are (`train.ema`); None: they are not.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    seed: jax.Array | int = 0
    average: Any = None

    @property
    def model(self) -> dict[str, Any]:
        """{"params", "batch_stats"} that predict: the averaged ones where there are any."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    variables: dict[str, Any], optimiser: optax.GradientTransformation, seed: int = 0, *, average: bool = False
) -> TrainState:
    """The state before the first step; `average`: with averaged weights, which begin as these variables."""
    return TrainState(
        jnp.zeros((), jnp.int32),
        variables["params"],
        variables["batch_stats"],
        optimiser.init(variables["params"]),
        jnp.uint32(seed),
        # Copies: a step gives each buffer away, once.
        jax.tree.map(jnp.array, {k: variables[k] for k in ("params", "batch_stats")}) if average else None,
    )
