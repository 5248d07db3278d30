"""What training and evaluation wrote is read back as written, and damage is named in one sentence."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlseg_jax.evaluate.run_tables import CompareRun, by_n, read_run, read_scores
from tlseg_jax.runtime.errors import InputError

TARGET, SOURCE = "mri_artery_tumour", "lits_tumour"


def write_run(
    folder: Path,
    *,
    model: str = "A",
    seed: int = 0,
    n: int | None = None,
    losses: Sequence[float] = (0.8, 0.4, 0.2, 0.1),
    draws: Mapping[int, float] | None = None,
    epochs: Sequence[tuple[int, float, float | None]] = ((2, 60.0, 0.5), (4, 30.0, 0.3)),
    dice: Mapping[str, Mapping[str, float]] | None = None,
    detection: Mapping[str, Any] | None = None,
) -> CompareRun:
    """A finished run's folder with known numbers; epochs are (last step, seconds, test loss)."""
    folder.mkdir(parents=True)
    lines = ["step,loss,validation_iou,test_loss"]
    for i, loss in enumerate(losses, 1):
        lines.append(f"{i},{loss},,")
        if draws and i in draws:
            lines.append(f"{i},,,{draws[i]}")
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    lines = ["epoch,step,seconds,train_loss,test_loss"]
    lines += [f"{i},{s},{t},0.1,{'' if v is None else v}" for i, (s, t, v) in enumerate(epochs, 1)]
    (folder / "epochs.csv").write_text("\n".join(lines) + "\n")
    dice = {TARGET: {"volume-1": 0.5, "volume-2": 0.75}} if dice is None else dice
    lines = ["test_set,subject,person,iou,dice,reference_ml,predicted_ml"]
    lines += [f"{t},{v},{v},{d / (2 - d)},{d},10,8" for t, own in dice.items() for v, d in own.items()]
    (folder / "subjects.csv").write_text("\n".join(lines) + "\n")
    sets = {t: {"n": len(own), "detection": detection} for t, own in dice.items()}
    summary = {"test_sets": sets, "trained_parameters": 1945250 if model == "C" else 2012514}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "settings.json").write_text(json.dumps({"job": {"freeze": "first_two" if model == "C" else "none"}}))
    return CompareRun(model, seed, n, folder)


def test_a_run_is_read_as_written(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a", draws={2: 0.6, 4: 0.4}, epochs=[(2, 60.0, 0.5), (4, 30.5, None)],
        detection={"found": 3, "missed": 1, "false": 2, "precision": 0.6, "recall": 0.75},
    )  # fmt: skip
    t = read_run(run)
    assert t.losses == [(1, 0.8), (2, 0.4), (3, 0.2), (4, 0.1)]
    assert t.draw_losses == [(2, 0.6), (4, 0.4)]
    assert t.test_losses == [(2, 0.5)]
    assert t.seconds == 90.5
    assert {v: s.dice for v, s in t.volumes(TARGET).items()} == {"volume-1": 0.5, "volume-2": 0.75}
    found = t.detection(TARGET)
    assert found is not None and found["found"] == 3
    with pytest.raises(InputError, match=r"no scores on lits_tumour \(it has: mri_artery_tumour\)"):
        t.volumes(SOURCE)
    assert t.detection(SOURCE) is None


def test_a_history_without_a_test_loss_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run.folder / "history.csv").write_text("step,loss,validation_iou\n1,0.5,\n1,,0.3\n")
    t = read_run(run)
    assert t.losses == [(1, 0.5)] and t.draw_losses == []


@pytest.mark.parametrize("name", ["history.csv", "epochs.csv", "subjects.csv", "summary.json", "settings.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "a")
    (run.folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} does not exist"):
        read_run(run)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("history.csv", "step,los\n1,2\n", "lacks the column 'loss'"),
        ("history.csv", "step,loss\n1,2,3\n", "line 2 has another number of cells"),
        ("history.csv", "step,loss\n1,low\n", "loss = 'low' is not a number"),
        ("history.csv", "step,loss\n1.5,2\n", "step is not a whole number"),
        ("history.csv", "step,loss\n1,nan\n", "no finite training loss"),
        ("history.csv", "step,loss\n", "no finite training loss"),
        ("epochs.csv", "epoch,step,seconds,train_loss,test_loss\n", "holds no epochs"),
        ("epochs.csv", "epoch,step,seconds,train_loss,test_loss\n1,2,,,\n", "seconds is empty"),
        ("subjects.csv", "test_set,subject\nx,y\n", "lacks the column"),
        ("summary.json", "{", "cannot be read"),
        ("summary.json", "{}", "has no test_sets"),
        ("settings.json", "[]", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, text: str, fault: str) -> None:
    run = write_run(tmp_path / "a")
    (run.folder / name).write_text(text)
    with pytest.raises(InputError, match=fault) as e:
        read_run(run)
    assert name in str(e.value) and "\n" not in str(e.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run.folder / "epochs.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"epochs\.csv cannot be read"):
        read_run(run)


def test_a_volume_twice_in_a_test_set_is_refused_and_an_empty_score_is_nan(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    path = run.folder / "subjects.csv"
    head = path.read_text().splitlines()[0]
    path.write_text(f"{head}\nt,v,v,,,1,2\n")
    assert np.isnan(read_scores(run.folder)["t"]["v"].dice)
    path.write_text(f"{head}\nt,v,v,1,1,1,2\nt,v,v,1,1,1,2\n")
    with pytest.raises(InputError, match="has v twice in t"):
        read_scores(run.folder)


def test_runs_are_grouped_and_an_odd_seed_is_refused(tmp_path: Path) -> None:
    def run(model: str, seed: int, n: int | None) -> CompareRun:
        return write_run(tmp_path / f"{model}{seed}{n}", model=model, seed=seed, n=n)

    runs = [run("B", 1, 2), run("B", 0, 2), run("A", 0, 2), run("A", 1, 2), run("A", 0, None), run("A", 0, 10)]
    groups = by_n([read_run(r) for r in runs])
    assert list(groups) == [2, 10, None]
    assert list(groups[2]) == ["A", "B"]
    assert [t.run.seed for t in groups[2]["B"]] == [0, 1]
    with pytest.raises(InputError, match="Model C with n = 2 has no run of seed 1"):
        by_n([read_run(r) for r in [*runs, run("C", 0, 2)]])
    with pytest.raises(InputError, match="a seed twice"):
        by_n([read_run(runs[0]), read_run(runs[0])])
    with pytest.raises(ValueError, match="model 'D'"):
        CompareRun("D", 0, None, tmp_path)
