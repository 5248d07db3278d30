"""The rehearsal of several hosts: environments, lines, signals and exit codes, of processes that are really run."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.processes import python
from tlseg_jax.commands import cluster_flags, launch
from tlseg_jax.runtime.errors import InputError


def hosts(script: str, count: int = 2) -> int:
    """The exit code of a shell script in so many processes, which know their numbers."""
    environments = launch.host_environments(count, 1, "cpu", 1234, os.environ)
    return launch.run_hosts(["bash", "-c", script], environments)


def test_each_host_knows_its_place_and_devices() -> None:
    found = launch.host_environments(2, 3, "cpu", 1234, {"HOME": "/h", "JAX_PLATFORMS": "cuda"})
    common = {
        "HOME": "/h",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "3",
        "JAX_NUM_PROCESSES": "2",
        "JAX_COORDINATOR_ADDRESS": "localhost:1234",
        "PYTHONUNBUFFERED": "1",
    }
    assert found == [common | {"JAX_PROCESS_ID": "0"}, common | {"JAX_PROCESS_ID": "1"}]


def test_cards_are_divided() -> None:
    def cards(**given: str) -> list[str]:
        return [e["CUDA_VISIBLE_DEVICES"] for e in launch.host_environments(2, 2, "cuda", 1, given)]

    assert cards() == ["0,1", "2,3"]
    assert cards(CUDA_VISIBLE_DEVICES="4,5,6,7,8") == ["4,5", "6,7"]
    with pytest.raises(InputError, match=r"need 4 cards, and CUDA_VISIBLE_DEVICES names 3"):
        cards(CUDA_VISIBLE_DEVICES="4,5,6")


def test_a_free_port_can_be_taken() -> None:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", launch.free_port()))


def test_lines_have_their_host_in_front(capfd: pytest.CaptureFixture[str]) -> None:
    assert hosts('echo "out $JAX_PROCESS_ID"; echo "a b" >&2; printf "10%%\\r20%%\\n"; printf last', 3) == 0
    out, err = capfd.readouterr()
    for i in range(3):
        ours = [t.removeprefix(f"[{i}] ") for t in out.splitlines() if t.startswith(f"[{i}]")]
        assert ours == [f"out {i}", "20%", "last"]
    assert sorted(err.splitlines()) == ["[0] a b", "[1] a b", "[2] a b"]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit $JAX_PROCESS_ID", 1),
        ("sleep 0.$((5 * (1 - JAX_PROCESS_ID))); exit $((JAX_PROCESS_ID + 3))", 4),  # the first in time
        ("exit 75", 75),
        ("if [ $JAX_PROCESS_ID = 1 ]; then kill -9 $$; fi", 137),
    ],
)
def test_the_first_failure_is_the_exit_code(script: str, code: int) -> None:
    assert hosts(script) == code


@pytest.mark.parametrize("stubborn", [False, True])
def test_the_others_are_ended_where_one_fails(
    stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.3)
    trap = "trap 'echo asked' TERM;" if stubborn else ""
    fails = f"until [ -e {tmp_path}/1 -a -e {tmp_path}/2 ]; do sleep 0.1; done; exit 3"
    # Waits longer than the tests may take.
    waits = f"{trap} touch {tmp_path}/$JAX_PROCESS_ID; while true; do sleep 0.1; done"
    code = hosts(f"if [ $JAX_PROCESS_ID = 0 ]; then {fails}; fi; {waits}", 3)
    assert code == 3
    out = capfd.readouterr().out
    assert ("[1] asked" in out and "[2] asked" in out) == stubborn


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(
    number: signal.Signals, tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    # What a shell in the background has its commands ignore, theirs could not trap.
    was = signal.signal(number, before := signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(number, was))

    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    beside = threading.Thread(target=send)
    beside.start()
    name = number.name.removeprefix("SIG")
    waits = f"touch {tmp_path}/$JAX_PROCESS_ID; while true; do sleep 0.1; done"
    assert hosts(f"trap 'echo saved; exit 75' {name}; {waits}") == 75
    beside.join()
    assert sorted(capfd.readouterr().out.splitlines()) == ["[0] saved", "[1] saved"]
    assert signal.getsignal(number) is before


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "experiments.launch", *arguments)


def test_the_command_is_behind_two_dashes() -> None:
    done = launched("--hosts=2", "--", "bash", "-c", 'echo "$0 $1"', "--hosts=7", "-x")
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["[0] --hosts=7 -x", "[1] --hosts=7 -x"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hosts=2"], "error: The command is missing"),
        (["--hosts=2", "--", "no_such_command"], "error: The command no_such_command is not there"),
        (["--hosts=0", "--", "true"], "hosts"),
    ],
)
def test_a_fault_is_one_line(arguments: list[str], message: str) -> None:
    done = launched(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_command_of_one_process_says_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in (cluster_flags.COORDINATOR, cluster_flags.NUM_PROCESSES, cluster_flags.PROCESS_ID):
        monkeypatch.setattr(type(flag), "value", None)
    cluster_flags.refuse("do it once")
    for name, value in (("COORDINATOR_ADDRESS", "a:1"), ("NUM_PROCESSES", "3"), ("PROCESS_ID", "0")):
        monkeypatch.setenv(f"JAX_{name}", value)
    with pytest.raises(InputError, match=r"by one process, and 3 are told by the environment: do it once\."):
        cluster_flags.refuse("do it once")
