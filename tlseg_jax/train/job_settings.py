"""Everything that one training run is made of, besides its data."""

import dataclasses
from typing import Any

from tlseg_jax.input.sampling import Sampling
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.recipes import Recipe
from tlseg_jax.train.step import FrozenBN
from tlseg_jax.transfer.restore import Head


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
      steps: the most training steps.
      epoch_ends: the last step of each epoch; none where the run does not count in epochs.
    """

    steps: int
    epoch_ends: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """Everything that one training run is made of, besides its data.

    Attributes:
      steps: the most training steps; None goes by `epochs`.
      n: labelled scans; None takes all training scans.
      seed: of the parameters, the order, the augmentation and which n scans are labelled.
      freeze: a name of `transfer.freeze.FREEZING`; only from a pre-trained start.
      validation: how many of the n scans are kept for validation instead of training.
      patience: validations without a better one before stopping; 0 never stops early.
      threads: that read patches.
      workers: processes that read patches; 0 for none.
      epochs: times through all labelled slices, where `steps` is None; a 3D network goes by steps.
      sampling: of slices: all once an epoch, or those with and without the target equally often; of patches at random
        places: evenly, or every second one on a structure.
      watch_every: steps between looks at the loss of 10 test slices; 0 never looks.
    """

    network: UNetConfig
    recipe: Recipe
    steps: int | None
    n: int | None = None
    seed: int = 0
    freeze: str = "none"
    frozen_bn: FrozenBN = "running"
    head: Head = "keep"
    validation: int = 0
    validate_every: int = 50
    patience: int = 0
    checkpoint_every: int = 200
    threads: int = 2
    workers: int = 0
    epochs: int = 0
    sampling: Sampling = "all"
    watch_every: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self) | {"network": self.network.to_dict(), "recipe": self.recipe.to_dict()}
