"""Training with data and results in a bucket: killed in the middle, gone on with on another machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.processes import python
from tests.remote.bucket import Bucket
from tests.remote.conftest import KEY, SECRET, on_machine
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.remote.entry import work_folder

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts a training; what is left of them is ended with the test."""
    children = []

    def begin(store: str, workdir: str, log: Path, *more: str) -> "subprocess.Popen[bytes]":
        with log.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.remote.train_there", store, workdir, str(STEPS), *more],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
            )
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill()
        child.wait()


@pytest.mark.slow
def test_killed_and_gone_on_with_elsewhere(
    bucket: Bucket, tiny_store: Store, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(tiny_store.folder, Path)
    for path in tiny_store.folder.rglob("*"):
        if path.is_file():
            bucket.put(f"data/tiny/{path.relative_to(tiny_store.folder)}", path.read_bytes())
    shutil.copytree(tiny_store.folder, tmp_path / "data" / "tiny")
    logs = [tmp_path / f"log{i}" for i in range(3)]
    straight = start(str(tmp_path / "data"), str(tmp_path / "straight"), logs[0])
    killed = start(f"{bucket}/data", f"{bucket}/runs", logs[1], "5")
    until = time.monotonic() + 200
    while "runs/finetune/run/checkpoints/4/.whole" not in bucket.names():
        assert killed.poll() is None and time.monotonic() < until, logs[1].read_text()
        time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert f"runs/finetune/run/checkpoints/{STEPS}/.whole" not in bucket.names()
    on_machine(monkeypatch, tmp_path / "second")
    again = start(f"{bucket}/data", f"{bucket}/runs", logs[2])
    assert again.wait(200) == 0, logs[2].read_text()
    assert straight.wait(200) == 0, logs[0].read_text()
    assert "was last worked in by" in logs[2].read_text()

    on_machine(monkeypatch, tmp_path / "third")
    ours = work_folder(f"{bucket}/runs/finetune/run", fetch="")
    theirs = tmp_path / "straight" / "finetune" / "run"
    a, b = load_model(ours), load_model(theirs)
    assert a.step == b.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, (a.params, a.batch_stats), (b.params, b.batch_stats))
    assert (ours / "history.csv").read_bytes() == (theirs / "history.csv").read_bytes()
    local = {p.relative_to(theirs).as_posix() for p in theirs.rglob("*") if p.is_file()}
    plain = {n for n in local if not n.startswith((".", "checkpoints", "tensorboard"))}
    assert plain <= bucket.results("runs/finetune/run")

    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in (content := path.read_bytes()) and SECRET.encode() not in content, path
    for name in bucket.names():
        assert KEY.encode() not in (content := bucket.get(name)) and SECRET.encode() not in content, name


def command(log: Path, name: str, *flags: str, code: int = 0) -> str:
    """What a command prints; `log` takes both of its streams too."""
    done = python("-m", f"experiments.{name}", *flags, JAX_PLATFORMS="cpu")
    with log.open("a") as out:
        out.write(done.stdout + done.stderr)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_commands_on_several_machines(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command on a machine that has nothing yet: what it needs comes from the bucket, what it makes goes there."""
    log = tmp_path / "log"
    small = ("--methods=HDT-C-E2E", "--n=2", "--seeds=1", "--steps=2", "--cohort_train=2", "--cohort_test=1")
    sweep = ("sweep", "--study=brain", f"--workdir={bucket}/runs", *small)
    assert "1 of 1 runs done" in command(log, *sweep)
    assert {"results.csv", "study.json"} <= bucket.results("runs/sweep/brain")
    cell = f"{bucket}/runs/sweep/brain/cells/HDT-C-E2E-n2-seed0"

    on_machine(monkeypatch, tmp_path / "second")
    assert "1 of 1 runs are done already" in command(log, *sweep)

    on_machine(monkeypatch, tmp_path / "third")
    command(log, "report", f"--workdir={bucket}/runs")
    assert b"<html" in bucket.get("runs/report/brain/report.html")
    assert b"cannot be shown" not in bucket.get("runs/report/brain/report.html")

    on_machine(monkeypatch, tmp_path / "fourth")
    given = (f"--run={cell}", "--dataset=hdt_c", f"--store={bucket}/runs/store")
    command(log, "evaluate", *given, "--split=train")
    assert b"hdt_c_train" in bucket.get("runs/sweep/brain/cells/HDT-C-E2E-n2-seed0/summary.json")
    scan = sorted((tmp_path / "second").rglob("cohort/hdt_c/images/*.nii.gz"))[0]
    command(log, "predict", f"--run={cell}", f"--input={scan}", f"--output={tmp_path / 'seg.nii.gz'}")
    assert (tmp_path / "seg.nii.gz").stat().st_size > 0

    wrong = command(log, "evaluate", f"--run={bucket}/runs/none", *given[1:], code=2)
    assert f"There is nothing at {bucket}/runs/none" in wrong
    wrong = command(log, "evaluate", f"--run=s3://u:{SECRET}@x/none", *given[1:], code=2)
    assert "refused" in wrong
    for text in [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]:
        assert KEY.encode() not in text and SECRET.encode() not in text
