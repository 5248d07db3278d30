"""A signal: training stops after the step under way and goes on from it; all processes stop at the same step."""

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import he_variables
from tlseg_jax import signals
from tlseg_jax.errors import Preempted
from tlseg_jax.files import lock_folder
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store import Store
from tlseg_jax.train import job as job_module
from tlseg_jax.train import preemption
from tlseg_jax.train.checkpoint_files import read_checkpoint, steps_in
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.job import JobSettings, train_job
from tlseg_jax.train.loop import Fit
from tlseg_jax.train.programs import Programs
from tlseg_jax.train.recipes import get_recipe


@pytest.fixture
def listening() -> Iterator[None]:
    signals.listen()
    yield
    signals.forget()


def test_outside_training_it_is_raised_at_once(listening: None) -> None:
    for number in signals.SIGNALS:
        with pytest.raises(Preempted, match=f"Stopped by {number.name}: run the same command again"):
            os.kill(os.getpid(), number)


def test_within_training_it_waits(listening: None) -> None:
    with signals.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked()
    assert signals.asked_by() == "SIGTERM"


def test_nothing_listens_by_itself() -> None:
    """A library's user has handlers of their own."""
    signals.listen_again()
    assert all(signal.getsignal(s) in (signal.SIG_DFL, signal.default_int_handler) for s in signals.SIGNALS)


def test_a_forked_child_dies_of_it() -> None:
    """Else the workers of a command could not be ended."""
    code = (
        "import os, signal\nfrom tlseg_jax import signals\nsignals.listen()\npid = os.fork()\n"
        "if not pid:\n    os.kill(os.getpid(), signal.SIGTERM)\n    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == (f"{-signal.SIGTERM}\n", "")


def test_a_command_ends_with_75_and_one_sentence() -> None:
    code = (
        "import os, signal\nfrom experiments import cli\n"
        "cli.run(lambda: os.kill(os.getpid(), signal.SIGUSR1))"
    )  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 75
    assert ended.stderr == "stopped: Stopped by SIGUSR1: run the same command again to go on from what is done.\n"


@pytest.fixture
def job(tiny_network: UNetConfig, monkeypatch: pytest.MonkeyPatch) -> JobSettings:
    monkeypatch.setattr(job_module, "init_variables", lambda config, key: he_variables(config))
    recipe = get_recipe("paper")
    return JobSettings(tiny_network, recipe, 7, checkpoint_every=5, validation=1, validate_every=4)


def train(store: Store, job: JobSettings, folder: Path, programs: Programs) -> Fit:
    with lock_folder(folder):
        return train_job(
            store, job, folder, programs=programs, say=lambda _: None, progress=False, tell_flops=False
        )  # fmt: skip


@pytest.mark.usefixtures("quick_compile", "listening")
def test_training_stops_with_a_checkpoint_and_goes_on_exactly(
    tiny_store: Store, job: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at steps that have no checkpoint of their own, at a validation, and at the last step."""
    programs = Programs()  # compiled once
    train(tiny_store, job, tmp_path / "whole", programs)
    call = Dispatch.__call__
    for step in (2, 4, 6, 7):

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


@pytest.mark.parametrize("seed", range(40))
def test_all_processes_stop_at_the_same_call(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes in any order that training allows: none begins a call before the one `under way` + 1 earlier is done.

    Several may be asked, the chief or not, at any time; a call is done when all have begun it.
    """
    draw = random.Random(seed)
    count, under_way, length = draw.randint(2, 5), draw.choice([0, 1, 8]), 60
    now, asked = 0, set[int]()
    service = Service()
    monkeypatch.setattr(preemption, "_numbers", itertools.count())
    monkeypatch.setattr(preemption.processes, "count", lambda: count)
    monkeypatch.setattr(preemption.processes, "is_chief", lambda: now == 0)
    monkeypatch.setattr(preemption.signals, "asked", lambda: now in asked)
    monkeypatch.setattr(preemption.distributed.global_state, "client", service)
    stops = [preemption.Stop(under_way + 2) for _ in range(count)]
    for stop in stops:
        stop._key = "tlseg/stop/0"  # each process counts for itself
    begun, ended_at = [0] * count, dict[int, int]()
    moment, who = draw.randint(0, 40 * count), draw.sample(range(count), draw.randint(1, count))
    for tick in itertools.count():
        if tick == moment:
            asked.update(who)
        able = [p for p in range(count) if p not in ended_at and begun[p] - under_way <= min(begun)]
        if not able:
            break
        now = draw.choice(able if draw.random() < 0.5 else [max(able, key=lambda p: begun[p])])
        begun[now] += 1
        if stops[now].after_call() or begun[now] == length:
            ended_at[now] = begun[now]
    assert len(ended_at) == count
    assert len(set(ended_at.values())) == 1
    if moment < 20 * count:
        assert set(ended_at.values()) != {length}
