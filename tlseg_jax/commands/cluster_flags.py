"""The flags that tell the processes of one run of one another: part of every command that several may do together."""

from absl import flags

from tlseg_jax.runtime import cluster
from tlseg_jax.runtime.errors import InputError

COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Several processes of one run: HOST:PORT of process 0; none given: what SLURM, Open MPI, Cloud TPU or GKE says.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes of one run: how many.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes of one run: which this is, from 0.")


def find() -> cluster.Cluster | None:
    """The processes that this one belongs to; None where there is but one.

    Raises:
      InputError: the flags, or the environment, contradict themselves.
    """
    return cluster.find_cluster(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)


def start() -> None:
    """Meet the other processes, where there are any, and say so; before any device is used.

    Raises:
      InputError: they cannot be told, or did not meet.
    """
    found = find()
    if found is not None:
        print(cluster.start(found), flush=True)


def refuse(instead: str) -> None:
    """For a command that is done by one process.

    Args:
      instead: what to do in place of it, as a clause.

    Raises:
      InputError: there are several.
    """
    found = find()
    if found is not None:
        raise InputError(f"This command is done by one process, and {found.count} are told {found.source}: {instead}.")
