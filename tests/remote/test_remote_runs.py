"""Training with data and results in a bucket: killed in the middle, gone on with on another machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.remote.bucket import Bucket
from tests.remote.conftest import KEY, SECRET, on_machine
from tlseg_jax.preprocess.store import Store
from tlseg_jax.remote.work_folder import work_folder
from tlseg_jax.train.checkpoint import load_model
from tlseg_jax.transfer.study import is_finished

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8


def start(store: str, workdir: str, log: Path, *more: str) -> "subprocess.Popen[bytes]":
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.remote.train_there", store, workdir, str(STEPS), *more], cwd=ROOT,
            stdout=out, stderr=subprocess.STDOUT, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip


def test_killed_and_gone_on_with_elsewhere(
    bucket: Bucket, tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(tiny_store.folder, Path)
    for path in tiny_store.folder.rglob("*"):
        if path.is_file():
            bucket.put(f"data/tiny/{path.relative_to(tiny_store.folder)}", path.read_bytes())
    shutil.copytree(tiny_store.folder, tmp_path / "data" / "tiny")
    logs = [tmp_path / f"log{i}" for i in range(3)]
    straight = start(str(tmp_path / "data"), str(tmp_path / "straight"), logs[0])
    killed = start(f"{bucket}/data", f"{bucket}/runs", logs[1], "0.5")
    until = time.monotonic() + 200
    while "runs/finetune/run/checkpoints/4/.whole" not in bucket.names():
        assert killed.poll() is None and time.monotonic() < until, logs[1].read_text()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert "runs/finetune/run/summary.json" not in bucket.names()
    on_machine(monkeypatch, tmp_path / "second")
    again = start(f"{bucket}/data", f"{bucket}/runs", logs[2])
    assert again.wait(200) == 0, logs[2].read_text()
    assert straight.wait(200) == 0, logs[0].read_text()
    assert "was last worked in by" in logs[2].read_text()

    on_machine(monkeypatch, tmp_path / "third")
    ours = work_folder(f"{bucket}/runs/finetune/run", fetch="")
    theirs = tmp_path / "straight" / "finetune" / "run"
    assert is_finished(ours, STEPS)
    a, b = load_model(ours), load_model(theirs)
    assert a.step == b.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, (a.params, a.batch_stats), (b.params, b.batch_stats))
    for name in ("history.csv", "subjects.csv"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    local = {p.relative_to(theirs).as_posix() for p in theirs.rglob("*") if p.is_file()}
    plain = {n for n in local if not n.startswith((".", "checkpoints", "tensorboard"))}
    assert plain <= bucket.results("runs/finetune/run")

    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in (content := path.read_bytes()) and SECRET.encode() not in content, path
    for name in bucket.names():
        assert KEY.encode() not in (content := bucket.get(name)) and SECRET.encode() not in content, name
