"""The processes of one run find one another (`jax.distributed`), and end together.

A process that fails tells the others through the coordination service, so that none waits for ever for a collective
that cannot happen: the others end with its exit code. One that is killed is missed by JAX's own heartbeat.
"""

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from tlseg_jax.runtime import processes, signals
from tlseg_jax.runtime.errors import InputError

HEARTBEAT_SECONDS = 60
"""After so long without a sign of life a process counts as dead."""

GRACE_SECONDS = 5.0
"""What a process has to end by itself once another has failed."""

LAST_SECONDS = 20.0
"""How long the chief, in whose process the coordination service lives, waits for the others to end."""

FAILED, ENDED = "tlseg/failed", "tlseg/ended"

GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "heartbeat", "CoordinationService")
"""In messages of JAX's about a process that is no longer there."""

NAMES = {"slurm": "SLURM", "ompi": "Open MPI", "gcetpu": "Cloud TPU", "gketpu": "GKE (TPU)", "k8s": "Kubernetes"}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Several processes of one run.

    Attributes:
      count: how many, 2 or more.
      index: which of them this is, from 0.
      coordinator: HOST:PORT of the first; None where JAX finds it out.
      source: what says so.
    """

    count: int
    index: int
    coordinator: str | None
    source: str


def find_cluster(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """The processes that this one belongs to, as the arguments say, else the environment, else a scheduler's variables.

    The environment's are JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; the schedulers are those that
    JAX detects: SLURM, Open MPI, Cloud TPU and GKE.

    Args:
      coordinator: HOST:PORT of process 0.
      num_processes: how many there are.
      process_id: which of them this is, from 0.

    Returns:
      None where there is but one.

    Raises:
      InputError: some of the three are missing, or a value is not usable.
    """
    if (coordinator, num_processes, process_id) != (None, None, None):
        names, given = ("coordinator", "num_processes", "process_id"), (coordinator, num_processes, process_id)
        source = "by the flags"
    else:
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        given, source = tuple(environment.get(n) for n in names), "by the environment"  # type: ignore[assignment]
        if given[1:] == (None, None):  # an address alone says nothing: JAX takes it beside a scheduler's variables
            return _scheduled(environment)
    missing = [f"`{n}`" for n, v in zip(names, given, strict=True) if v in (None, "")]
    number = None if given[1] is None else _whole_number(names[1], given[1])
    if number == 1 and not (missing and given[0]):
        return None
    if missing:
        there = [f"`{n}`" for n in names if f"`{n}`" not in missing]
        raise InputError(
            f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} given without {' and '.join(missing)}: "
            "several processes of one run need all three, the first two the same for all."
        )
    address, index = str(given[0]), _whole_number(names[2], given[2])
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"`{names[0]}={address}` is not usable: give HOST:PORT of process 0, as in node1:12345.")
    assert number is not None
    if number < 1:
        raise InputError(f"`{names[1]}={number}` is not usable: give 1 or more.")
    if not 0 <= index < number:
        raise InputError(
            f"`{names[2]}={index}` of {number} processes is not usable: they count from 0 to {number - 1}."
        )
    return Cluster(number, index, address, source) if number > 1 else None


def _whole_number(name: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise InputError(f"`{name}={value}` is not usable: give a whole number.") from None


def _scheduled(environment: Mapping[str, str]) -> Cluster | None:
    """What JAX's own detection says; it looks at this process's environment."""
    from jax._src.clusters import ClusterEnv  # what `jax.distributed.initialize` itself asks

    # SLURM's variables are there in a batch script too, which is one process unless srun starts more.
    if "SLURM_JOB_ID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return None
    # A pod of one's own in Kubernetes is no cluster, and asking its API takes rights that few have.
    known = [e for e in ClusterEnv._cluster_types if e.name in NAMES and not e.opt_in_only_method]
    if "JOB_COMPLETION_INDEX" not in environment:
        known = [e for e in known if e.name != "k8s"]
    for kind in known:
        try:
            if kind.is_env_present():
                number = kind.get_process_count()
                return Cluster(number, kind.get_process_id(), None, f"by {NAMES[kind.name]}") if number > 1 else None
        except Exception as e:  # whatever a scheduler's variables or services give
            raise InputError(
                f"This looks like a job of {NAMES[kind.name]}, and its processes cannot be told from it "
                f"({str(e).splitlines()[0] if str(e) else type(e).__name__}): give `coordinator`, `num_processes` and "
                "`process_id`, or `num_processes=1` for one process."
            ) from None
    return None


def start(cluster: Cluster) -> str:
    """Meet the other processes; before any device is used.

    Returns:
      What was found, in one line.

    Raises:
      InputError: they did not meet.
    """
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    where = (
        {}
        if cluster.coordinator is None
        else {
            "coordinator_address": cluster.coordinator,
            "num_processes": cluster.count,
            "process_id": cluster.index,
            # Without it JAX looks for a scheduler once more, and may leave this process one device only.
            "cluster_detection_method": "deactivate",
        }
    )
    try:
        jax.distributed.initialize(**where, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)  # type: ignore[arg-type]
        # JAX has the processes tell one another their devices when each first asks for them: all do so here, together,
        # as the chief may otherwise be the only one for minutes.
        devices, here = jax.device_count(), jax.local_device_count()
    except (RuntimeError, ValueError) as e:
        raise InputError(
            f"Process {cluster.index} of {cluster.count} could not meet the others at "
            f"{cluster.coordinator or 'the address that JAX found'} ({str(e).splitlines()[0][:200]}): see that all are "
            "started, with the same coordinator, and that its port is free and can be reached."
        ) from None
    signals.listen_again()
    _Watch.start()
    return (
        f"processes: {cluster.count}, told {cluster.source}; this is number {cluster.index}, with {here} of {devices} "
        "devices."
    )


def finish() -> None:
    """Wait for all to end well, and part; does nothing with one process."""
    if processes.count() == 1:
        return
    import jax

    processes.wait("end")
    _Watch.stop()
    jax.distributed.shutdown()


@dataclasses.dataclass(frozen=True)
class Failure:
    """What the processes end with.

    Attributes:
      process: who was the first.
      sentence: what it says to the user.
    """

    process: int
    code: int
    sentence: str

    def as_said(self) -> str:
        """What another process says that ends for it."""
        return f"ended, as process {self.process} did: {self.sentence}"


def fail(code: int, sentence: str) -> Failure:
    """Tell the others that this process ends with an exit code, and why; does nothing with one process.

    Args:
      sentence: why; of a traceback, its last line.

    Returns:
      What the first one said that failed, which may be this one: it alone tells the user.
    """
    ours = Failure(processes.index(), code, (sentence.splitlines() or [""])[-1])
    if processes.count() == 1:
        return ours
    try:
        processes.service().key_value_set(FAILED, json.dumps(dataclasses.asdict(ours)))
    except RuntimeError:  # another was first, or the coordinator is gone
        return failure() or ours
    return ours


def failure() -> Failure | None:
    """What the first process said that failed; None where none did."""
    try:
        return Failure(**json.loads(processes.service().key_value_try_get(FAILED)))
    except RuntimeError:
        return None


def lost_another(error: BaseException) -> bool:
    """Whether an error of JAX's says that another process has gone, in a run of several."""
    text = str(error)
    return processes.count() > 1 and isinstance(error, RuntimeError) and any(t in text for t in GONE)


def leave(code: int) -> None:
    """End this process at once after `fail`, the chief last; returns where there is but one.

    Python's usual end would wait for collectives that never come.
    """
    if processes.count() == 1:
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    client = processes.service()
    with contextlib.suppress(RuntimeError):
        client.key_value_set(f"{ENDED}/{processes.index()}", "", allow_overwrite=True)
        if processes.is_chief():
            last = time.monotonic() + LAST_SECONDS
            for i in range(1, processes.count()):
                left = max(int(1000 * (last - time.monotonic())), 1)
                client.blocking_key_value_get(f"{ENDED}/{i}", left)
            time.sleep(0.2)  # their last words to the service
    os._exit(code)


class _Watch:
    """The thread that looks for a process that failed."""

    _stopped = threading.Event()

    @classmethod
    def start(cls) -> None:
        threading.Thread(target=cls._watch, daemon=True, name="tlseg-failures").start()

    @classmethod
    def stop(cls) -> None:
        cls._stopped.set()

    @classmethod
    def _watch(cls) -> None:
        while not cls._stopped.wait(1.0):
            first = failure()
            # Those that met the same fault are ending by themselves.
            if first is None or cls._stopped.wait(GRACE_SECONDS):
                continue
            if first.process != processes.index():
                print(first.as_said(), file=sys.stderr, flush=True)
            leave(first.code)
