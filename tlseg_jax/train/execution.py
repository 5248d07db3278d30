"""How a run is executed: what changes its speed and memory, and not what it computes."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tlseg_jax.models.lowering.choice import read_lowering
from tlseg_jax.models.remat import Remat
from tlseg_jax.runtime.bounds import Positive, Read
from tlseg_jax.runtime.device_memory import parse_bytes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.parallel import Way

Cache = Literal["none", "device", "features", "auto"]


def _folder(text: str) -> Path:
    if not text:
        raise InputError("it names no folder: give one for the trace.")
    return Path(text)


@dataclasses.dataclass(frozen=True)
class Execution:
    """Settings that a run may be resumed under others of, with the same results up to rounding.

    Attributes:
      remat: what is computed again in the backward pass to save memory: none, all but the input of each block, or all
        but the network's and the head's (full); not given: none, or the fastest that fits memory_budget.
      memory_budget: what a training step may take, in bytes or as in 11GB or 10GiB; the fastest remat that fits is
        taken; not given: what the device has.
      cache: device: the prepared data are held on the device, and batches are made there; features: what the frozen
        first levels of the network give of them is, computed once, where patches are only mirrored; auto: the most of
        this that is possible and fits.
      steps_per_call: training steps in one dispatch: small networks wait less for the host.
      profile: folder for a trace of some steps, for TensorBoard or Perfetto.
      dry_run: tell the network, the memory and the time that the run would take, from a few measured steps, and stop.
      keep: the newest checkpoints that stay, besides the best by validation.
      parallel: one: one device; pmap: the batch is divided over all devices, of all hosts; mesh: the batch and the
        volumes, as mesh says; not given: pmap over as many devices as divide the batch. The results are the same up
        to rounding.
      mesh: devices that share the batch (data) and each volume's first side (space), as in data:2,space:4; with
        parallel=mesh.
      lowering: how the training step's convolutions are done: native, turned, folded, planes or onednn, as far as
        the device has it, or measure: what is the fastest on it by a measurement made now; not given: as the run
        began, else what is known for the device, else measured once and kept.

    Raises:
      InputError: fields contradict each other.
    """

    remat: Remat | None = None
    memory_budget: Annotated[int | None, Read(parse_bytes)] = None
    cache: Cache = "none"
    steps_per_call: Positive = 1
    profile: Annotated[Path | None, Read(_folder)] = None
    dry_run: bool = False
    keep: Positive = 3
    parallel: Way | None = "one"
    mesh: str | None = None
    lowering: Annotated[str | None, Read(read_lowering)] = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.dry_run and self.profile:
            raise InputError("`dry_run` stops before the steps that `profile` would trace: leave one of them out.")
