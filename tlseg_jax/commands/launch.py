"""Rehearse a run of several hosts on one machine: the same command in several processes, each with its own devices.

    tlseg launch --hosts=2 --devices_per_host=2 -- tlseg finetune --pretask=none ...

The processes find one another by their environment, as on a cluster. Their lines have their number in front.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, NoReturn

from absl import flags

from tlseg_jax.commands import cli
from tlseg_jax.runtime.errors import InputError

EXIT_PREEMPTED = cli.EXIT_PREEMPTED

GRACE_SECONDS = 30.0
"""What the others have to end by themselves once one has failed, and again once they were asked to."""

SAVING_SECONDS = 120.0
"""The same, where they were asked to stop from outside and save."""

HOSTS = flags.DEFINE_integer("hosts", 2, "Processes, each in place of a host.", lower_bound=1)
DEVICES_PER_HOST = flags.DEFINE_integer("devices_per_host", 1, "Devices of each.", lower_bound=1)
PLATFORM = flags.DEFINE_enum(
    "platform", "cpu", ["cpu", "cuda"], "Devices: parts of this machine's processor, or its graphics cards, divided."
)


def main(command: Sequence[str]) -> NoReturn:
    """Parse the flags, run the command in every process, and end with the exit code of the first that failed."""
    if not command:
        raise InputError("The command is missing: give it behind --, as in -- tlseg pretrain.")
    if shutil.which(command[0]) is None:
        raise InputError(f"The command {command[0]} is not there: give one that runs by itself, behind --.")
    environments = host_environments(HOSTS.value, DEVICES_PER_HOST.value, PLATFORM.value, free_port(), os.environ)
    raise SystemExit(run_hosts(command, environments))


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def host_environments(
    hosts: int, devices: int, platform: str, port: int, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """The environment of each process.

    Args:
      platform: "cpu", or "cuda": host i gets the i-th `devices` of the cards that are visible here.
      port: of the first, at which they meet.

    Raises:
      InputError: CUDA_VISIBLE_DEVICES names too few cards.
    """
    cards = [c for c in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if c]
    if platform == "cuda" and cards and len(cards) < hosts * devices:
        raise InputError(
            f"{hosts} hosts of {devices} devices need {hosts * devices} cards, and CUDA_VISIBLE_DEVICES names "
            f"{len(cards)}: give fewer --hosts or --devices_per_host."
        )
    cards = cards or [str(i) for i in range(hosts * devices)]
    out = []
    for i in range(hosts):
        own = {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(hosts),
            "JAX_PROCESS_ID": str(i),
            "PYTHONUNBUFFERED": "1",
        }
        if platform == "cpu":
            own |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        else:
            own |= {"CUDA_VISIBLE_DEVICES": ",".join(cards[i * devices : (i + 1) * devices])}
        out.append({**environment, **own})
    return out


def run_hosts(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> int:
    """Run a command once an environment, with its lines on our streams, until all have ended.

    SIGTERM, SIGINT and SIGUSR1 are passed on. Where one fails the others are ended, if they do not by themselves.

    Returns:
      The exit code of the first that failed, as a shell has it (128 and the signal's number for a killed one); 0.
    """
    children: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(number: int, _: object) -> None:
        asked.append(number)
        _signal(children, number)

    passed = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, pass_on) for number in passed}
    readers = []
    try:
        for i, environment in enumerate(environments):
            # In sessions of their own: a terminal's Ctrl-C reaches them through us alone, once.
            child = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            children.append(child)
            for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
                assert source is not None
                reader = threading.Thread(target=_copy_lines, args=(source, target, f"[{i}] "), daemon=True)
                reader.start()
                readers.append(reader)
        code = _wait(children, asked)
        for reader in readers:
            reader.join(5.0)  # a grandchild may hold the pipe
        return code
    finally:
        _signal(children, signal.SIGKILL)
        for child in children:
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> int:
    """Until all have ended; see `run_hosts`."""
    code, failed_at, told = 0, 0.0, 0
    while any(child.poll() is None for child in children):
        for child in children:
            if not code and child.poll():
                code, failed_at = _shell_code(child.returncode), time.monotonic()
        saving = code == EXIT_PREEMPTED or bool(asked)
        patience = SAVING_SECONDS if saving else GRACE_SECONDS
        if code and time.monotonic() - failed_at > patience * (told + 1):
            _signal(children, signal.SIGKILL if told else signal.SIGTERM)
            told += 1
        time.sleep(0.05)
    return code or next((_shell_code(c.returncode) for c in children if c.returncode), 0)


def _signal(children: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def _shell_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _copy_lines(source: IO[bytes], target: IO[str], prefix: str) -> None:
    with source:
        for line in source:
            # One write a line, so that lines of several processes do not mix.
            target.write(prefix + line.decode(errors="replace").rstrip("\r\n").rsplit("\r", 1)[-1] + "\n")
            target.flush()
