"""The losses and epochs that a run's training wrote down, read from its folder.

RUN/history.csv    step, loss, validation_iou, test_loss: a row has one value, other cells are empty
RUN/epochs.csv     epoch, step, seconds, train_loss, test_loss; runs of volumes have none
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlseg_jax.evaluate.table import read_table
from tlseg_jax.runtime.errors import InputError

Curve = Sequence[tuple[int, float]]
"""(step, value) pairs in any order."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One row of epochs.csv.

    Attributes:
      epoch: counted from 1.
      step: the last step of the epoch.
      seconds: of training alone.
      test_loss: of the whole test set at the epoch's end; None where it was not measured.
    """

    epoch: int
    step: int
    seconds: float
    test_loss: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class RunCurves:
    """What the training of one run wrote down.

    Attributes:
      losses: (step, training loss of one batch), of which one at least is finite.
      draw_losses: (step, loss on the fixed draw of test slices); may be empty.
      epochs: in order; may be empty.
    """

    losses: Curve
    draw_losses: Curve
    epochs: tuple[Epoch, ...]

    @property
    def test_losses(self) -> Curve:
        """(step, loss on the whole test set) at the ends of epochs; may be empty."""
        return [(e.step, e.test_loss) for e in self.epochs if e.test_loss is not None]

    @property
    def seconds(self) -> float:
        """Training time of all epochs."""
        return sum(e.seconds for e in self.epochs)


def read_curves(folder: Path) -> RunCurves:
    """Read the curves of a run.

    Raises:
      InputError: history.csv is missing or holds no finite loss, or a file is damaged; it is named.
    """
    path = folder / "history.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the folder of a run that has trained, or train it again.")
    history = _rows(path, ("step", "loss"))
    losses = [(r.whole("step"), v) for r in history if (v := r.number("loss")) is not None]
    if not any(math.isfinite(v) for _, v in losses):
        raise InputError(f"{path} holds no finite training loss: train the run again.")
    draws = [(r.whole("step"), v) for r in history if (v := r.number("test_loss")) is not None]
    epochs = [_epoch(r) for r in _rows(folder / "epochs.csv", ("epoch", "step", "seconds"))]
    return RunCurves(sorted(losses), sorted(draws), tuple(sorted(epochs, key=lambda e: e.epoch)))


@dataclasses.dataclass(frozen=True)
class _Row:
    path: Path
    line: int
    cells: Mapping[str, str]

    def fault(self, text: str) -> InputError:
        return InputError(f"{self.path}, line {self.line}: {text}: the file is damaged, so make the run again.")

    def number(self, column: str) -> float | None:
        text = self.cells.get(column, "").strip()
        try:
            return float(text) if text else None
        except ValueError:
            raise self.fault(f"{column} = '{text}' is not a number") from None

    def whole(self, column: str) -> int:
        value = self.number(column)
        if value is None or not value.is_integer():
            raise self.fault(f"{column} is not a whole number")
        return int(value)


def _epoch(row: _Row) -> Epoch:
    seconds = row.number("seconds")
    if seconds is None:
        raise row.fault("seconds is empty")
    return Epoch(row.whole("epoch"), row.whole("step"), seconds, row.number("test_loss"))


def _rows(path: Path, columns: Sequence[str]) -> list[_Row]:
    return [_Row(path, i + 2, cells) for i, cells in enumerate(read_table(path, columns))]
