"""history.csv and epochs.csv as files: what they hold, and what a kill or a step back leaves of them."""

import csv
import errno
from pathlib import Path

import pytest

from tlseg_jax.train import history as history_module
from tlseg_jax.train.history import Epochs, History, forget_test_losses, format_epochs


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as f:
        return list(csv.reader(f))


def write(path: Path, steps: int = 6) -> None:
    """Loss every step, the draw's every second, validation every third, as the loop adds them."""
    history = History(path, 0)
    for step in range(1, steps + 1):
        history.add(step, "loss", 1 / (3 * step))
        if step % 2 == 0:
            history.add(step, "test_loss", 2 / (3 * step))
        if step % 3 == 0:
            history.add(step, "validation_iou", step / 7)
    history.close()


def test_one_value_a_row_and_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write(path, 3)
    assert rows(path) == [
        ["step", "loss", "validation_iou", "test_loss"],
        ["1", str(1 / 3), "", ""],
        ["2", str(1 / 6), "", ""],
        ["2", "", "", str(1 / 3)],
        ["3", str(1 / 9), "", ""],
        ["3", "", str(3 / 7), ""],
    ]


def test_opened_again_at_the_last_step_it_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write(path)
    before = path.read_bytes()
    again = History(path, 6)
    again.close()
    assert path.read_bytes() == before
    assert again.curves["loss"] == [(s, 1 / (3 * s)) for s in range(1, 7)]
    assert again.curves["test_loss"] == [(s, 2 / (3 * s)) for s in (2, 4, 6)]
    assert again.curves["validation_iou"] == [(3, 3 / 7), (6, 6 / 7)]
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def test_rows_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    path, whole = tmp_path / "history.csv", tmp_path / "whole.csv"
    write(path)
    write(whole, 4)
    again = History(path, 4)
    again.close()
    assert path.read_bytes() == whole.read_bytes()
    assert again.curves["validation_iou"] == [(3, 3 / 7)]


def test_a_run_that_starts_over_starts_the_file_over(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write(path)
    again = History(path, 0)
    again.close()
    assert rows(path) == [["step", "loss", "validation_iou", "test_loss"]]
    assert not any(again.curves.values())


def test_a_last_line_cut_anywhere_is_dropped(tmp_path: Path) -> None:
    """A kill leaves the file ending within a row of a step after the last checkpoint."""
    path, whole = tmp_path / "history.csv", tmp_path / "whole.csv"
    write(whole, 4)
    full = whole.read_bytes()
    for row in (b"15,0.0444444444444,,\r\n", b"16,,,0.123456\r\n", b"18,,0.9,\r\n"):
        for length in range(1, len(row)):
            path.write_bytes(full + row[:length])
            History(path, 4).close()
            assert path.read_bytes() == full


def test_a_cut_while_it_is_rewritten_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    write(path)
    before = path.read_bytes()

    def cut(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as m, pytest.raises(OSError):
        m.setattr(history_module, "_row", cut)
        History(path, 4)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def test_epochs_are_kept_up_to_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "epochs.csv"
    epochs = Epochs(path, 0)
    assert not path.exists()
    for k in (1, 2, 3):
        epochs.add(epoch=k, step=5 * k, seconds=None if k == 1 else 0.25, train_loss=1 / k, test_loss=k / 3)
    assert rows(path) == [
        ["epoch", "step", "seconds", "train_loss", "test_loss"],
        ["1", "5", "", "1.0", str(1 / 3)],
        ["2", "10", "0.25", "0.5", str(2 / 3)],
        ["3", "15", "0.25", str(1 / 3), "1.0"],
    ]
    whole = rows(path)
    assert [r["epoch"] for r in Epochs(path, 15).rows] == ["1", "2", "3"]
    assert Epochs(path, 0).rows == []
    again = Epochs(path, 14)
    assert [r["epoch"] for r in again.rows] == ["1", "2"]
    again.add(epoch=3, step=15, seconds=0.5, train_loss=0.1, test_loss=None)
    assert rows(path)[:3] == whole[:3]
    assert rows(path)[3] == ["3", "15", "0.5", "0.1", ""]


def test_the_table_of_epochs_adds_up_and_shows_what_was_not_measured() -> None:
    table = format_epochs(
        [
            {"epoch": "1", "step": "10", "seconds": "1.25", "train_loss": "0.5", "test_loss": ""},
            {"epoch": "2", "step": "20", "seconds": "2.5", "train_loss": "0.25", "test_loss": "0.75"},
        ]
    ).splitlines()
    assert [line.split() for line in table[1:]] == [
        ["1", "10", "1.2", "0.5000", "-"],
        ["2", "20", "2.5", "0.2500", "0.7500"],
        ["all", "3.8"],
    ]
    assert len({len(line) for line in table[:3]}) == 1


def test_losses_of_another_test_set_go_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("step,loss,validation_iou,test_loss\n1,0.5,,\n1,,,0.7\n2,0.4,,\n2,,0.3,\n")
    (tmp_path / "epochs.csv").write_text("epoch,step,seconds,train_loss,test_loss\n1,2,3.0,0.45,0.6\n")
    assert forget_test_losses(tmp_path)
    assert (tmp_path / "history.csv").read_text().splitlines()[1:] == ["1,0.5,,", "2,0.4,,", "2,,0.3,"]
    assert (tmp_path / "epochs.csv").read_text().splitlines()[1:] == ["1,2,3.0,0.45,"]
    before = [(tmp_path / f).read_bytes() for f in ("history.csv", "epochs.csv")]
    assert not forget_test_losses(tmp_path)
    assert [(tmp_path / f).read_bytes() for f in ("history.csv", "epochs.csv")] == before
