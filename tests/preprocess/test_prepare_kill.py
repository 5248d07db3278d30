"""`prepare` killed or pre-empted wherever it is: the next call leaves what an uninterrupted one would have left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.preprocess.prepare_kill_trials import MODES
from tests.processes import python

ROOT = Path(__file__).resolve().parents[2]


def trials(kills: int, seed: int, modes: tuple[str, ...]) -> dict[str, Any]:
    done = python(
        "-m", "tests.preprocess.prepare_kill_trials", f"--kills={kills}", f"--seed={seed}", f"--modes={','.join(modes)}"
    )
    assert done.returncode == 0, done.stderr
    tally: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(tally))
    return tally


def test_killed_at_random_moments_it_goes_on_to_the_same_store() -> None:
    tally = trials(2, 0, ("one", "shards"))
    assert tally["kills"] == tally["identical"] == 2


@pytest.mark.slow
def test_killed_at_many_random_moments_it_goes_on_to_the_same_store() -> None:
    tally = trials(24, 1, MODES)
    assert tally["kills"] == tally["identical"] == 24
    assert set(tally["by_mode"].values()) == {6} and tally["half_written"] > 0


def alive(group: int) -> list[int]:
    """The processes of a process group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" (")
        except OSError:
            continue  # it has just ended
        state, _, pgrp = rest.rpartition(") ")[2].split()[:3]
        if int(pgrp) == group and state not in "ZX":
            found.append(int(pid))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes are counted in /proc")
@pytest.mark.parametrize("stop", ["SIGTERM to all", "SIGTERM to the parent", "SIGKILL"])
def test_no_worker_outlives_its_parent(stop: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.preprocess.waiting_job", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while len(list(tmp_path.glob("*.began"))) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        assert len(alive(process.pid)) >= 3
        if stop == "SIGTERM to all":  # as SLURM does
            os.killpg(process.pid, signal.SIGTERM)
        else:  # as Kubernetes does, and no one's wish
            process.send_signal(signal.SIGKILL if stop == "SIGKILL" else signal.SIGTERM)
        _, errors = process.communicate(timeout=50)
        assert process.returncode == (-signal.SIGKILL if stop == "SIGKILL" else 75), errors
        while alive(process.pid) and not list(tmp_path.glob("*.ended")):
            time.sleep(0.05)
        assert not list(tmp_path.glob("*.ended"))
        assert len(list(tmp_path.glob("*.began"))) == 2
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
