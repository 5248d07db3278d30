"""How a run is executed: what changes its speed and memory, and not what it computes."""

import dataclasses
from pathlib import Path
from typing import Literal

from tlseg_jax.models.remat import Remat
from tlseg_jax.train.parallel import Way

Cache = Literal["none", "device", "features", "auto"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """Settings that a run may be resumed under others of, with the same results up to rounding.

    Attributes:
      remat: what is computed again in the backward pass.
      memory_budget: bytes that the step may take; None: the device's. The cheapest `remat` that fits is then taken.
      cache: "device" holds the prepared data set on the device and samples there; "features" holds there what the
        frozen first levels of the network give of it; "auto" does the most of this that is possible and fits.
      steps_per_call: training steps in one dispatch.
      profile: folder for a trace of some steps; None: no trace.
      dry_run: tell what the run would take, and stop.
      fixed_remat: `remat` was asked for: a budget is checked against it, and chooses nothing else.
      keep: the newest checkpoints that stay, besides the best by validation.
      parallel: "one", "pmap" or "mesh"; None: pmap over the devices that divide the batch (`parallel.choose_parallel`).
      mesh: how a mesh divides its devices, as in "data:2,space:4".
    """

    remat: Remat = "none"
    memory_budget: int | None = None
    cache: Cache = "none"
    steps_per_call: int = 1
    profile: Path | None = None
    dry_run: bool = False
    fixed_remat: bool = False
    keep: int = 3
    parallel: Way | None = "one"
    mesh: str | None = None
