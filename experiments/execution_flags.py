"""The flags of training that change its speed and memory: part of every command that trains."""

from pathlib import Path
from typing import cast, get_args

from absl import flags

from experiments import compilation_flags
from tlseg_jax.models.remat import Remat
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.execution import Cache, Execution
from tlseg_jax.train.memory import parse_bytes
from tlseg_jax.train.parallel import Way

PRECISIONS = ("float32", "bfloat16")

PRECISION = flags.DEFINE_enum(
    "precision", PRECISIONS[0], PRECISIONS,
    "Of the activations; parameters and statistics stay float32. bfloat16 halves their memory.",
)  # fmt: skip
REMAT = flags.DEFINE_enum(
    "remat", None, get_args(Remat),
    "What is computed again in the backward pass to save memory: none, all but the input of each block, or all but "
    "the network's and the head's; none given: none, or the fastest that fits --memory_budget.",
)  # fmt: skip
MEMORY_BUDGET = flags.DEFINE_string(
    "memory_budget", None, "What a training step may take, as in 11GB or 10GiB; the fastest --remat that fits is taken."
)
CACHE = flags.DEFINE_enum(
    "cache", "none", get_args(Cache),
    "device: the prepared data are held on the device, and batches are made there; features: what the frozen first "
    "levels of the network give of them is, computed once, where patches are only mirrored; auto: the most of this "
    "that is possible and fits.",
)  # fmt: skip
STEPS_PER_CALL = flags.DEFINE_integer(
    "steps_per_call", 1, "Training steps in one dispatch: small networks wait less for the host.", lower_bound=1
)
PROFILE = flags.DEFINE_string("profile", None, "Folder for a trace of some steps, for TensorBoard or Perfetto.")
KEEP = flags.DEFINE_integer(
    "keep", 3, "The newest checkpoints that stay, besides the best by validation.", lower_bound=1
)
PARALLEL = flags.DEFINE_enum(
    "parallel", None, get_args(Way),
    "one: one device; pmap: the batch is divided over all devices, of all hosts; mesh: the batch and the volumes, as "
    "--mesh says. None given: pmap over as many devices as divide the batch. The results are the same up to rounding.",
)  # fmt: skip
MESH = flags.DEFINE_string(
    "mesh", None,
    "Devices that share the batch (data) and each volume's first side (space), as in data:2,space:4; with "
    "--parallel=mesh.",
)  # fmt: skip
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False,
    "Tell the network, the memory and the time that the run would take, from a few measured steps, and stop.",
)  # fmt: skip

flags.adopt_module_key_flags(compilation_flags)  # so that --help lists them


def execution() -> Execution:
    """How the flags have a run executed.

    Raises:
      InputError: a value cannot be read, or flags contradict each other.
    """
    if PROFILE.value is not None and not PROFILE.value:
        raise InputError("--profile names no folder: give one for the trace, as in --profile=trace.")
    if DRY_RUN.value and PROFILE.value:
        raise InputError("--dry_run stops before the steps that --profile would trace: leave one of them out.")
    budget = None if MEMORY_BUDGET.value is None else parse_bytes(MEMORY_BUDGET.value)
    return Execution(
        cast(Remat, REMAT.value or "none"), budget, cast(Cache, CACHE.value), STEPS_PER_CALL.value,
        Path(PROFILE.value) if PROFILE.value else None, DRY_RUN.value, fixed_remat=REMAT.value is not None,
        keep=KEEP.value, parallel=cast(Way | None, PARALLEL.value), mesh=MESH.value,
    )  # fmt: skip
