"""Training that is killed and run again ends as one that was left alone; a killed process holds nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import python
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder

ROOT = Path(__file__).resolve().parents[2]


def tally_of(folder: Path, *arguments: str) -> dict[str, Any]:
    """What `kill_trials` found; in a process of its own, as it forks."""
    ended = python("-m", "tests.train.kill_trials", f"--folder={folder}", *arguments, JAX_PLATFORMS="cpu")
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    print(ended.stdout)
    return json.loads(ended.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_many_killed_runs(tmp_path: Path) -> None:
    """Each ends as one left alone. Of the kills some come while a checkpoint is written and some while none is."""
    tally = tally_of(tmp_path, "--kills=24", "--seed=1")
    assert tally["kills"] == 24 and tally["differing"] == []
    assert tally["same"] == tally["runs"] > 0
    assert tally["most_steps_lost_to_sigterm"] == 0
    assert {"SIGTERM", "training", "writing a checkpoint"} <= tally["where"].keys()


def test_a_killed_process_holds_no_folder(tmp_path: Path) -> None:
    """While it lives nobody else gets in, and what it was writing stays beside."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tlseg_jax.runtime.files import lock_folder, replacing\n"
        "folder = Path(sys.argv[1])\n"
        "with lock_folder(folder), replacing(folder / 'file') as f:\n"
        "    f.write('half')\n    print('held', flush=True)\n    time.sleep(600)"
    )
    (tmp_path / "file").write_text("whole")
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is in use by another process"), lock_folder(tmp_path):
            pass
        p.send_signal(signal.SIGKILL)
    with lock_folder(tmp_path):
        assert (tmp_path / "file").read_text() == "whole"
