"""Several processes of one run, really started: what they find, tell one another, train and score."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.conftest import csv_rows, write_store
from tests.processes import python
from tests.train import cluster_steps
from tests.train.slice_runs import small_store
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.evaluate.mask_file import load_masks
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.cluster import Cluster, find_cluster
from tlseg_jax.runtime.errors import InputError

TOLERANCE = 1e-3
"""Relative, of losses and of each tensor's largest value, after 20 steps.

Devices add the same float32 numbers in another order, 6e-8 a sum; Adam divides a gradient by its own size, so that a
parameter whose gradient is little more than rounding moves by a part of the learning rate (1e-2) in another direction.
A row that another process read twice, or an average of averages, changes the losses by 1e-2 and more.
"""


def run(
    arguments: tuple[str, ...], hosts: int = 0, devices: int = 1, **environment: str
) -> subprocess.CompletedProcess[str]:
    launch = ("experiments.launch", f"--hosts={hosts}", f"--devices_per_host={devices}", "--", sys.executable, "-m")
    mine = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    cache = jax.config.values["jax_compilation_cache_dir"]
    if cache:
        mine |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return python("-m", *(launch if hosts else ()), *arguments, **mine | environment)


def lines(text: str, process: int) -> list[str]:
    return [line.removeprefix(f"[{process}] ") for line in text.splitlines() if line.startswith(f"[{process}] ")]


# What this process belongs to.

ENVIRONMENT = {"JAX_COORDINATOR_ADDRESS": "node1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}


def test_flags_go_before_the_environment() -> None:
    assert find_cluster(environment={}) is None
    assert find_cluster(environment=ENVIRONMENT) == Cluster(4, 2, "node1:1234", "by the environment")
    assert find_cluster("a:1", 2, 0, ENVIRONMENT) == Cluster(2, 0, "a:1", "by the flags")
    assert find_cluster(num_processes=1, environment=ENVIRONMENT) is None
    assert find_cluster("a:1", 1, 0, {}) is None


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (("a:1", None, None), {}, "`coordinator` is given without `num_processes` and `process_id`"),
        ((None, 2, 0), {}, "`num_processes` and `process_id` are given without `coordinator`"),
        (("a:1", 2, 2), {}, "`process_id=2` of 2 processes is not usable: they count from 0 to 1"),
        (("a:1", 2, -1), {}, "`process_id=-1"),
        (("a:1", 0, 0), {}, "`num_processes=0` is not usable"),
        (("node1", 2, 0), {}, "`coordinator=node1` is not usable: give HOST:PORT"),
        (("node1:99999", 2, 0), {}, "HOST:PORT"),
        ((None, None, None), ENVIRONMENT | {"JAX_NUM_PROCESSES": "four"}, "`JAX_NUM_PROCESSES=four` is not usable"),
        ((None, None, None), {"JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}, "without `JAX_COORDINATOR_ADDRESS`"),
    ],
)
def test_what_does_not_go_together(
    given: tuple[str | None, int | None, int | None], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        find_cluster(*given, environment=environment)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (SLURM, (2, 1, "by SLURM")),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        # A batch script: it has the job's variables, and nobody has started the other tasks.
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NUM_TASKS"}, None),
        (
            {
                "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
                "OMPI_COMM_WORLD_SIZE": "3",
                "OMPI_COMM_WORLD_RANK": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": "0",
            },
            (3, 2, "by Open MPI"),
        ),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_schedulers_are_heard_as_jax_hears_them(
    environment: dict[str, str], found: tuple[int, int, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster = find_cluster()
    assert (cluster and (cluster.count, cluster.index, cluster.source)) == found
    assert cluster is None or cluster.coordinator is None


def test_a_scheduler_that_says_nonsense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SLURM | {"SLURM_NTASKS": "two"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"a job of SLURM.*two.*`num_processes=1` for one process"):
        find_cluster()


# What they tell one another.


def test_one_process_tells_itself() -> None:
    assert processes.count() == 1
    assert processes.is_chief()
    assert processes.share({"a": 1}) == {"a": 1}
    assert processes.gather(3) == [3]
    assert processes.divide([1, 2, 3], lambda some: [2 * i for i in some]) == [2, 4, 6]
    assert processes.chief(lambda: 5) == 5


def test_processes_tell_one_another_and_end_together() -> None:
    done = run(("tests.train.cluster_talk", "input", "1"), hosts=3)
    assert done.returncode == 2, done.stderr
    told = [json.loads(next(t for t in lines(done.stdout, p) if t.startswith("{"))) for p in range(3)]
    expected = np.array([-0.0, 1e-45, np.nan, np.inf], np.float32)
    for t in told:
        assert t["count"] == 3
        assert t["devices"] == [3, 1]
        assert t["share"] == {"from": 0}
        assert t["gather"] == [[0, 0.1], [1, 1.1], [2, 2.1]]
        assert t["chief"] == "fine"
        assert t["each"] == "The scan x is empty."
        assert t["divide"] == [[0, 0], [1, 1], [2, 2], [3, 0], [4, 1]]
        assert t["arrays"] == {"a": ["float32", [4], expected.tobytes().hex()], "b": ["int8", [2, 3], bytes(6).hex()]}
    assert "error: The scan y is empty: copy it again." in lines(done.stderr, 1)
    assert "Traceback" not in done.stderr
    assert "lost another" not in done.stderr
    for p in (0, 2):
        assert any("ended, as process 1 did: error: The scan y" in t for t in lines(done.stderr, p))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        (("bug", "1"), 1, "KeyError: 'of ours'"),
        (("bug", "0"), 1, "KeyError: 'of ours'"),
        (("input", "0", "service"), 2, "The scan y"),
        (("stop", "1", "service"), 75, "stopped: Stopped."),
        (("killed", "1"), 137, "lost another process of the run"),
        (("killed", "0", "service"), 137, "another task died"),
        (("killed", "1", "service"), 137, "[0] stopped: Stopped by SIGTERM"),  # the launcher's, before JAX misses it
    ],
)
def test_no_process_waits_for_one_that_has_gone(how: tuple[str, ...], code: int, text: str) -> None:
    done = run(("tests.train.cluster_talk", *how), hosts=2)
    assert done.returncode == code, done.stderr
    assert text in done.stderr


# A run.


def files(run: Path) -> set[str]:
    found = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    kept = {f for f in found if not f.startswith(("checkpoints", "tensorboard"))}
    return kept | {f.split("/")[1] for f in found if f.startswith("checkpoints/")}


def near(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Within the tolerance of the largest value; biases begin at 0."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1e-2, float(np.abs(expected).max())))


def near_scores(entry: dict[str, Any], other: dict[str, Any]) -> None:
    """Summaries of a test set; a few voxels lie at the threshold.

    Not "weights": the digest of parameters that are near, and differ by the rounding.
    """
    assert entry.keys() == other.keys()
    for k, v in entry.items():
        if k == "weights":
            continue
        assert other[k] == (pytest.approx(v, abs=0.02) if isinstance(v, float) else v), k


def check_same(one: Path, several: Path) -> None:
    """Two run folders hold the same losses, parameters, scores and masks."""
    assert files(one) == files(several)
    assert len(list((several / "tensorboard").iterdir())) == 1
    a, b = csv_rows(one / "history.csv"), csv_rows(several / "history.csv")
    assert [r["step"] for r in a] == [r["step"] for r in b]
    for name in ("loss", "validation_iou", "test_loss"):
        values = np.array([[float(r[name] or 0) for r in h] for h in (a, b)])
        np.testing.assert_allclose(values[1], values[0], rtol=TOLERANCE, err_msg=name)
    x, y = load_model(one), load_model(several)
    ours, theirs = (jax.tree.leaves((m.params, m.batch_stats)) for m in (x, y))
    for p, q in zip(ours, theirs, strict=True):
        near(q, p)
    assert [r["subject"] for r in csv_rows(one / "subjects.csv")] == [
        r["subject"] for r in csv_rows(several / "subjects.csv")
    ]
    s, t = (json.loads((r / "summary.json").read_text()) for r in (one, several))
    scores, others = s.pop("test_sets"), t.pop("test_sets")
    assert scores.keys() == others.keys()
    for name in scores:
        near_scores(scores[name], others[name])
        masks, drawn = (load_masks(r / "predictions" / f"{name}.npz") for r in (one, several))
        assert list(masks) == list(drawn)
        assert all((masks[k] != drawn[k]).mean() < 0.01 for k in masks)
    for other in ("train_seconds", "weights"):
        del s[other], t[other]
    assert s == t


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(), ("data:2,space:2",)])
def test_two_processes_of_two_devices_step_as_one(mesh: tuple[str, ...], tmp_path: Path) -> None:
    write_store(tmp_path / "tiny", train=7, test=0)
    done = run(("tests.train.cluster_steps", str(tmp_path / "tiny"), "20", *mesh), hosts=2, devices=2)
    assert done.returncode == 0, done.stderr
    said = [json.loads(next(t for t in lines(done.stdout, p) if t.startswith("{"))) for p in (0, 1)]
    assert said[0]["digest"] == said[1]["digest"]
    assert said[0]["losses"] == said[1]["losses"]
    losses, *trees = cluster_steps.train(tmp_path / "tiny", 20)
    np.testing.assert_allclose(said[0]["losses"], losses, rtol=TOLERANCE / 100)
    assert losses[-1] < losses[0]
    for ours, values in zip(jax.tree.leaves(trees), said[0]["values"], strict=True):
        near(np.array(values), ours.ravel(), TOLERANCE / 10)  # with an epsilon of 1e-3, far above the rounding


@pytest.mark.slow
def test_two_processes_of_two_devices_train_as_one(tmp_path: Path) -> None:
    store = write_store(tmp_path / "tiny", train=7, test=3)
    whole = run(("tests.train.cluster_run", str(tmp_path), str(tmp_path / "one"), "6"))
    assert whole.returncode == 0, whole.stderr
    parts = run(("tests.train.cluster_run", str(tmp_path), str(tmp_path / "two"), "6"), hosts=2, devices=2)
    assert parts.returncode == 0, parts.stderr
    check_same(tmp_path / "one" / "run", tmp_path / "two" / "run")
    assert any("pmap over 4 devices of 2 processes" in t for t in lines(parts.stdout, 0))
    # The other process says whom it read, and that it is there; it scored its share of the test subjects.
    said = [t for t in lines(parts.stdout, 1) if "connected to" not in t]  # Gloo prints its own
    assert len(said) == 2
    read = [set(next(t for t in lines(parts.stdout, p) if t.startswith("read:")).split()[1:]) for p in (0, 1)]
    test = store.subjects("test")
    assert [r & set(test) for r in read] == [{test[0], test[2]}, {test[1]}]


@pytest.mark.slow
def test_two_processes_train_on_slices_as_one(tmp_path: Path) -> None:
    store = small_store(tmp_path / "slices", train=4, test=3)
    given = ("tests.train.cluster_run", str(tmp_path))
    assert run((*given, str(tmp_path / "one"), "8", "slices")).returncode == 0
    parts = run((*given, str(tmp_path / "two"), "8", "slices"), hosts=2, devices=2)
    assert parts.returncode == 0, parts.stderr
    check_same(tmp_path / "one" / "run", tmp_path / "two" / "run")
    tested = {
        r["test_set"]: json.loads((tmp_path / "two/run/summary.json").read_text())["test_sets"][r["test_set"]]
        for r in csv_rows(tmp_path / "two/run/subjects.csv")
    }
    assert all(list(entry["detection"]["volumes"]) == list(store.subjects("test")) for entry in tested.values())
    whole, of_two = (csv_rows(tmp_path / w / "run" / "epochs.csv") for w in ("one", "two"))
    assert [r["step"] for r in whole] == [r["step"] for r in of_two] == ["6"]
    assert float(of_two[0]["test_loss"]) == pytest.approx(float(whole[0]["test_loss"]), rel=TOLERANCE)


@pytest.mark.slow
def test_a_pretrained_start_of_twenty_steps_and_evaluate(tmp_path: Path) -> None:
    write_store(tmp_path / "tiny", train=7, test=3)
    given = ("20", "start")
    whole = run(("tests.train.cluster_run", str(tmp_path), str(tmp_path / "one"), *given))
    assert whole.returncode == 0, whole.stderr
    parts = run(("tests.train.cluster_run", str(tmp_path), str(tmp_path / "two"), *given), hosts=2, devices=2)
    assert parts.returncode == 0, parts.stderr
    for name in ("pretrained", "run"):
        check_same(tmp_path / "one" / name, tmp_path / "two" / name)
    # The same command finds the run finished, with any number of processes.
    before = (tmp_path / "two" / "run" / "subjects.csv").read_bytes()
    again = run(("tests.train.cluster_run", str(tmp_path), str(tmp_path / "two"), *given))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "two" / "run" / "subjects.csv").read_bytes() == before
    command = (
        "experiments.evaluate",
        f"--run={tmp_path / 'two' / 'run'}",
        "--dataset=tiny",
        f"--store={tmp_path}",
        "--split=train",
    )
    scored = run(command, hosts=2)
    assert scored.returncode == 0, scored.stderr
    ours = csv_rows(tmp_path / "two" / "run" / "subjects.csv")
    assert run((*command[:1], f"--run={tmp_path / 'one' / 'run'}", *command[2:])).returncode == 0
    assert [r["subject"] for r in ours] == [r["subject"] for r in csv_rows(tmp_path / "one" / "run" / "subjects.csv")]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_one_process_goes_on(tmp_path: Path) -> None:
    write_store(tmp_path / "tiny", train=7, test=3)
    given, history = ("tests.train.cluster_run", str(tmp_path), str(tmp_path / "w")), tmp_path / "w/run/history.csv"

    def send() -> None:
        while not history.exists() or len(history.read_text().splitlines()) < 20:
            time.sleep(0.1)
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = str(tmp_path).encode() in (folder / "cmdline").read_bytes()
                if ours and b"JAX_PROCESS_ID=1\0" in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGTERM)

    threading.Thread(target=send, daemon=True).start()
    first = run((*given, "300"), hosts=2, devices=2)
    assert first.returncode == 75, first.stderr
    said = [t for t in first.stderr.splitlines() if "stopped: " in t]
    assert len(said) == 1
    step = int(re.findall(r"after step (\d+) of 300", said[0])[0])
    assert (tmp_path / "w/run/checkpoints" / str(step)).is_dir()
    done = csv_rows(history)
    assert int(done[-1]["step"]) == step
    last = run((*given, "300"))
    assert last.returncode == 0, last.stderr
    assert csv_rows(history)[: len(done)] == done  # those steps were not done again
    steps = [int(r["step"]) for r in csv_rows(history) if r["loss"]]
    assert steps == list(range(1, 301))


@pytest.mark.slow
def test_a_folder_in_use_ends_all_with_one_sentence(tmp_path: Path) -> None:
    write_store(tmp_path / "tiny", train=7, test=3)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "run").write_text("in the way")
    done = run(("tests.train.cluster_run", str(tmp_path), str(tmp_path / "two"), "6"), hosts=2)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "cannot be written" in done.stderr
