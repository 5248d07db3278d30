"""A signal: training stops after the step under way and goes on from it; all processes stop at the same step."""

import functools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import he_variables, write_store
from tests.processes import python
from tlseg_jax.checkpoints.checkpoint_files import read_checkpoint, steps_in
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime import signals
from tlseg_jax.runtime.errors import Preempted
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.preemption import Stop
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train import run as run_module
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.trainer import Fit


@pytest.fixture
def listening() -> Iterator[None]:
    signals.listen()
    yield
    signals.forget()


def test_outside_training_it_is_raised_at_once(listening: None) -> None:
    for number in signals.SIGNALS:
        with pytest.raises(Preempted, match=f"Stopped by {number.name}: run the same command again"):
            os.kill(os.getpid(), number)


def test_no_library_takes_it_for_a_fault_of_its_own(listening: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JAX, which makes what its backends' start raises a RuntimeError."""
    from jax._src import xla_bridge

    monkeypatch.setattr(xla_bridge, "_backends", {})
    monkeypatch.setattr(xla_bridge, "_init_backend", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted, match="Stopped by SIGTERM"):
        xla_bridge.backends()


def test_dropped_in_a_destructor_it_comes_again(listening: None) -> None:
    class Collected:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted, match="Stopped by SIGTERM"):
        Collected()
        time.sleep(30)


def test_what_else_python_drops_is_told_as_before(listening: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException | None] = []
    signals.forget()
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_value))
    before = sys.unraisablehook
    signals.listen()
    signals.listen()

    class Faulty:
        def __del__(self) -> None:
            raise ValueError("a fault")

    Faulty()
    signals.forget()
    assert [str(e) for e in told] == ["a fault"] and sys.unraisablehook is before


def test_within_training_it_waits(listening: None) -> None:
    after = False
    with pytest.raises(Preempted, match="Stopped by SIGTERM"), signals.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        after = signals.asked()
    assert after
    assert signals.asked_by() == "SIGTERM"


def test_nothing_listens_by_itself() -> None:
    """A library's user has handlers of their own."""
    signals.listen_again()
    assert all(signal.getsignal(s) in (signal.SIG_DFL, signal.default_int_handler) for s in signals.SIGNALS)


def test_a_forked_child_dies_of_it() -> None:
    """Else the workers of a command could not be ended."""
    code = (
        "import os, signal\nfrom tlseg_jax.runtime import signals\nsignals.listen()\npid = os.fork()\n"
        "if not pid:\n    os.kill(os.getpid(), signal.SIGTERM)\n    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == (f"{-signal.SIGTERM}\n", "")


def test_a_command_ends_with_75_and_one_sentence() -> None:
    code = (
        "import os, signal\nfrom tlseg_jax.commands import cli\ncli.run(lambda: os.kill(os.getpid(), signal.SIGUSR1))"
    )
    ended = python("-c", code)
    assert ended.returncode == 75
    assert ended.stderr == "stopped: Stopped by SIGUSR1: run the same command again to go on from what is done.\n"


@pytest.fixture
def job(tiny_network: UNetConfig, monkeypatch: pytest.MonkeyPatch) -> JobSettings:
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config))
    recipe = get_recipe("paper")
    return JobSettings(tiny_network, recipe, 7, checkpoint_every=5, validation=1, validate_every=4)


def train(store: Store, job: JobSettings, folder: Path, programs: Programs) -> Fit:
    with lock_folder(folder):
        return train_job(store, job, folder, programs=programs, progress=False)


@pytest.mark.usefixtures("quick_compile", "listening")
def test_training_stops_with_a_checkpoint_and_goes_on_exactly(
    tiny_store: Store, job: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at a step that has no checkpoint of its own, at a validation, and at the last step."""
    programs = Programs()  # compiled once
    train(tiny_store, job, tmp_path / "whole", programs)
    call = Dispatch.__call__
    for step in (2, 4, 7):

        def stopped(self: Dispatch, state: Any, batches: Any, done: int = 0, step: int = step) -> Any:
            if done + 1 == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return call(self, state, batches, done)

        with monkeypatch.context() as m:
            m.setattr(Dispatch, "__call__", stopped)
            with pytest.raises(Preempted, match=rf"after step {step} of 7, which is saved in .*: run the same") as e:
                train(tiny_store, job, tmp_path / "run", programs)
        assert e.value.everywhere
        assert steps_in(tmp_path / "run" / "checkpoints")[-1] == step
        signals.forget()
        signals.listen()
    again = train(tiny_store, job, tmp_path / "run", programs)
    assert again.resumed_at == 7
    (a, place_a, said_a), (b, place_b, said_b) = (
        read_checkpoint(tmp_path / name / "checkpoints" / "7") for name in ("whole", "run")
    )
    assert (place_a, said_a) == (place_b, said_b)
    assert a.keys() == b.keys()
    for x, y in zip(_leaves(a), _leaves(b), strict=True):
        assert x.tobytes() == y.tobytes()
    assert (tmp_path / "whole" / "history.csv").read_bytes() == (tmp_path / "run" / "history.csv").read_bytes()


def _leaves(tree: Any) -> list[Any]:
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


class Service:
    """As much of JAX's coordination service as `Stop` uses."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_try_get(self, key: str) -> str:
        if key not in self.values:
            raise RuntimeError(f"NOT_FOUND: Config key {key} not found.")
        return self.values[key]


class Run:
    """Processes that train: one that has `under_way` calls more than another has begun waits for it."""

    def __init__(self, count: int, under_way: int, length: int, asked: dict[int, int], seed: int) -> None:
        """`asked` maps a process to the call in which it is asked."""
        self.count, self.under_way, self.length, self.asked = count, under_way, length, asked
        self.begun, self.changed = [0] * count, threading.Condition()
        self.stopped_at: list[int | None] = [None] * count
        service = Service()
        self.stops = [Stop("key", count, i, service, functools.partial(self.is_asked, i), 0.002) for i in range(count)]
        self.pauses = [random.Random(seed * 100 + i) for i in range(count)]
        threads = [threading.Thread(target=self.train, args=(i,), daemon=True) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.hangs = any(thread.is_alive() for thread in threads)
        for stop in self.stops:
            stop.close()

    def is_asked(self, i: int) -> bool:
        return i in self.asked and self.begun[i] >= self.asked[i]

    def train(self, i: int) -> None:
        for call in range(1, self.length + 1):
            with self.changed:
                self.begun[i] = call
                self.changed.notify_all()
                self.changed.wait_for(lambda call=call: min(self.begun) >= call - self.under_way)  # type: ignore[misc]
            time.sleep(self.pauses[i].choice([0, 0.0005, 0.004]))
            if self.stops[i].after_call():
                self.stopped_at[i] = call
                return


@pytest.mark.parametrize(("count", "under_way", "who"), [(2, 0, [1]), (2, 0, [0]), (3, 1, [2, 0]), (4, 8, [3, 1, 2])])
def test_all_processes_stop_after_the_same_call(count: int, under_way: int, who: list[int]) -> None:
    """Also where one cannot go on without the others: with 0 under way it waits for them within each call."""
    for seed in range(4):
        asked = {p: random.Random(seed + p).randint(1, 30) for p in who}
        run = Run(count, under_way, 400, asked, seed)
        assert not run.hangs
        (at,) = set(run.stopped_at)
        assert at is not None
        assert min(asked.values()) <= at < 400


def test_nobody_is_asked() -> None:
    run = Run(3, 2, 30, {}, 0)
    assert (run.hangs, run.begun, run.stopped_at) == (False, [30] * 3, [None] * 3)


def test_asked_in_the_last_call_nobody_waits_for_ever() -> None:
    for seed in range(4):
        run = Run(3, 1, 20, {1: 20, 2: 19}, seed)
        assert not run.hangs
        (at,) = set(run.stopped_at)
        assert at in (19, 20, None)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "place"), [("SIGTERM", 1), ("SIGUSR1", 0)])
def test_two_processes_stop_at_one_step_and_one_goes_on(sent: str, place: int, tmp_path: Path) -> None:
    """Two of two devices, of which one is asked; then one process of one device, and one that did all of it."""
    write_store(tmp_path / "store", train=9)
    launch = ("experiments.launch", "--hosts=2", "--devices_per_host=2", "--", sys.executable, "-m")

    def run(folder: str, *signal_of: str, hosts: bool = False) -> subprocess.CompletedProcess[str]:
        command = ("-m", *(launch if hosts else ()), "tests.train.stop_run", str(tmp_path / "store"))
        environment = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        return python(*command, str(tmp_path / folder), *signal_of, **environment)

    stopped = run("run", sent, "3", str(place), hosts=True)
    said = stopped.stdout + stopped.stderr
    assert stopped.returncode == 75, said
    last = {p: max(int(n) for n in re.findall(rf"^\[{p}\] step (\d+)$", said, re.MULTILINE)) for p in (0, 1)}
    assert last[0] == last[1] < 40
    (sentence,) = re.findall(r"stopped: .*", said)
    assert f"after step {last[0]} of 40, which is saved in {tmp_path}/run: run the same command again" in sentence
    assert "Traceback" not in said
    rest = run("run")
    assert f"went on from {last[0]}\n" in rest.stdout, rest.stdout + rest.stderr
    whole = run("whole")
    assert "went on from 0\n" in whole.stdout, whole.stdout + whole.stderr
    (a, place_a, _), (b, place_b, _) = (read_checkpoint(tmp_path / n / "checkpoints" / "40") for n in ("run", "whole"))
    assert place_a == place_b
    for x, y in zip(_leaves(a["params"]), _leaves(b["params"]), strict=True):
        # A few steps added the same float32 numbers in another order; Adam magnifies what is near to nothing.
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-3 * np.abs(y).max())
