"""What a run has measured so far, as CSV files beside its checkpoints.

    history.csv   step, loss, validation_iou, test_loss; empty where nothing was measured
    epochs.csv    epoch, step, seconds, train_loss, test_loss; of runs that count in epochs

Of several processes the chief has the files; all of them know what was measured.
"""

import csv
import os
from pathlib import Path
from typing import IO, Any

from tlseg_jax.runtime import processes
from tlseg_jax.runtime.files import replacing, told

COLUMNS = ("loss", "validation_iou", "test_loss")
EPOCH_COLUMNS = ("epoch", "step", "seconds", "train_loss", "test_loss")

CurvePoints = list[tuple[int, float]]


class History:
    """history.csv, appended; rows after a resumed step are dropped.

    Attributes:
      curves: (step, value) pairs of each of `COLUMNS`, earlier calls included.
    """

    def __init__(self, path: Path, resumed_at: int) -> None:
        """Open `path`, keeping what it holds up to the step `resumed_at`."""
        self._path = path
        self._file: IO[str] | None = None
        kept = _read(path, resumed_at) if processes.is_chief() else {}
        kept = processes.share(kept)
        self.curves: dict[str, CurvePoints] = {c: [(int(s), float(v)) for s, v in kept[c]] for c in COLUMNS}
        if processes.is_chief():
            with told(path.parent):
                self._open()

    def _open(self) -> None:
        measured = ("loss", "test_loss", "validation_iou")  # the order within a step, as the loop adds them
        kept = [(step, c, value) for c in measured for step, value in self.curves[c]]
        # Written beside: a kill before the next flush must not lose the rows that were there.
        with replacing(self._path, newline="") as f:
            rows = csv.writer(f)
            rows.writerow(["step", *COLUMNS])
            rows.writerows(_row(*r) for r in sorted(kept, key=lambda r: r[0]))
        self._file = self._path.open("a", newline="")
        self._rows = csv.writer(self._file)

    def add(self, step: int, column: str, value: float) -> None:
        """Append one value."""
        self.curves[column].append((step, value))
        if self._file:
            with told(self._path.parent):
                self._rows.writerow(_row(step, column, value))

    def flush(self) -> None:
        """Put what was added on the disk."""
        if self._file:
            with told(self._path.parent):
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file:
            with told(self._path.parent):
                self._file.close()


def _read(path: Path, last: int) -> dict[str, CurvePoints]:
    """What history.csv holds up to the step `last`."""
    curves: dict[str, CurvePoints] = {c: [] for c in COLUMNS}
    if not last or not path.exists():
        return curves
    with path.open(newline="") as f:
        for row in csv.reader(f):
            # A killed run may leave half a line at the end; it is of a later step anyway.
            if len(row) != 1 + len(COLUMNS) or not row[0].isdigit() or int(row[0]) > last:
                continue
            for column, text in zip(COLUMNS, row[1:], strict=True):
                if text:
                    curves[column].append((int(row[0]), float(text)))
    return curves


def _row(step: int, column: str, value: float) -> list[Any]:
    return [step, *(value if c == column else "" for c in COLUMNS)]


class Epochs:
    """epochs.csv, rewritten whole at each epoch's end.

    Attributes:
      rows: one an epoch, values of `EPOCH_COLUMNS` as text.
    """

    def __init__(self, path: Path, resumed_at: int) -> None:
        """Open `path`, keeping the epochs that ended by the step `resumed_at`."""
        self._path = path
        rows: list[dict[str, str]] = []
        if processes.is_chief() and path.exists() and resumed_at:
            with path.open(newline="") as f:
                rows = [r for r in csv.DictReader(f) if int(r["step"]) <= resumed_at]
        self.rows: list[dict[str, str]] = processes.share(rows)

    def add(self, **values: Any) -> None:
        """Append one epoch; None is left empty."""
        self.rows.append({c: "" if values[c] is None else str(values[c]) for c in EPOCH_COLUMNS})
        if not processes.is_chief():
            return
        with told(self._path.parent), replacing(self._path, newline="") as f:
            writer = csv.DictWriter(f, EPOCH_COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)


def forget_test_losses(run: Path) -> bool:
    """Empty the test losses of a run's files, as they are of a test set that is no longer what it was.

    Returns:
      Whether there were any.
    """
    gone = False
    for name in ("history.csv", "epochs.csv"):
        path = run / name
        if not path.exists():
            continue
        with path.open(newline="") as f:
            reader = csv.DictReader(f)
            columns, rows = reader.fieldnames or (), list(reader)
        if not any(r.get("test_loss") for r in rows):
            continue
        gone = True
        kept = [r | {"test_loss": ""} for r in rows]
        if name == "history.csv":  # a row has one value
            kept = [r for r in kept if any(r[c] for c in COLUMNS)]
        with told(run), replacing(path, newline="") as f:
            writer = csv.DictWriter(f, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
    return gone


def format_epochs(rows: list[dict[str, str]]) -> str:
    """The rows of epochs.csv as an aligned table, with the seconds in all; an empty cell is a dash."""

    def cell(text: str, decimals: int) -> str:
        return f"{float(text):.{decimals}f}" if text else "-"

    lines = [f"{'epoch':>5}{'step':>8}{'seconds':>10}{'train loss':>12}{'test loss':>11}"]
    for r in rows:
        lines.append(
            f"{r['epoch']:>5}{r['step']:>8}{cell(r['seconds'], 1):>10}{cell(r['train_loss'], 4):>12}"
            f"{cell(r['test_loss'], 4):>11}"
        )
    total = sum(float(r["seconds"]) for r in rows if r["seconds"])
    return "\n".join([*lines, f"{'all':>5}{'':>8}{total:>10.1f}"])
