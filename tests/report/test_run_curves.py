"""What training wrote down is read back as written, and damage is named in one sentence."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tlseg_jax.evaluate.run_curves import read_curves
from tlseg_jax.runtime.errors import InputError


def write_run(
    folder: Path,
    *,
    losses: Sequence[float] = (0.8, 0.4, 0.2, 0.1),
    draws: Mapping[int, float] | None = None,
    validation: Mapping[int, float] | None = None,
    epochs: Sequence[tuple[int, float, float | None]] = ((2, 60.0, 0.5), (4, 30.0, 0.3)),
    detection: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """A finished run's folder with known numbers; epochs are (last step, seconds, test loss)."""
    folder.mkdir(parents=True)
    lines = ["step,loss,validation_iou,test_loss"]
    for i, loss in enumerate(losses, 1):
        lines.append(f"{i},{loss},,")
        if draws and i in draws:
            lines.append(f"{i},,,{draws[i]}")
        if validation and i in validation:
            lines.append(f"{i},,{validation[i]},")
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    lines = ["epoch,step,seconds,train_loss,test_loss"]
    lines += [f"{i},{s},{t},0.1,{'' if v is None else v}" for i, (s, t, v) in enumerate(epochs, 1)]
    (folder / "epochs.csv").write_text("\n".join(lines) + "\n")
    sets = {name: {"detection": found} for name, found in (detection or {}).items()}
    (folder / "summary.json").write_text(json.dumps({"test_sets": sets}))
    return folder


def test_a_run_is_read_as_written(tmp_path: Path) -> None:
    t = read_curves(write_run(tmp_path / "a", draws={2: 0.6, 4: 0.4}, epochs=[(2, 60.0, 0.5), (4, 30.5, None)]))
    assert t.losses == [(1, 0.8), (2, 0.4), (3, 0.2), (4, 0.1)]
    assert t.draw_losses == [(2, 0.6), (4, 0.4)]
    assert t.test_losses == [(2, 0.5)]
    assert t.seconds == 90.5


def test_a_run_of_volumes_has_no_test_loss_and_no_epochs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run / "history.csv").write_text("step,loss,validation_iou\n1,0.5,\n1,,0.3\n")
    (run / "epochs.csv").unlink()
    t = read_curves(run)
    assert (
        t.losses == [(1, 0.5)]
        and t.validation == [(1, 0.3)]
        and t.draw_losses == []
        and t.epochs == ()
        and t.seconds == 0
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run / "history.csv").unlink()
    with pytest.raises(InputError, match=r"history\.csv does not exist"):
        read_curves(run)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("history.csv", "step,los\n1,2\n", "lacks the column 'loss'"),
        ("history.csv", "step,loss\n1,2,3\n", "has a row of another length"),
        ("history.csv", "step,loss\n1,low\n", "line 2: 'loss' is 'low', not a number"),
        ("history.csv", "step,loss\n1.5,2\n", "'step' is '1.5', not a whole number"),
        ("history.csv", "step,loss\n1,nan\n", "no finite training loss"),
        ("history.csv", "step,loss\n", "no finite training loss"),
        ("epochs.csv", "epoch,step,seconds,train_loss,test_loss\n1,2,,,\n", "'seconds' is empty"),
        ("epochs.csv", b"\xff\xfe\x00\x80", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, text: str | bytes, fault: str) -> None:
    run = write_run(tmp_path / "a")
    (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=fault) as e:
        read_curves(run)
    assert name in str(e.value) and "\n" not in str(e.value)
