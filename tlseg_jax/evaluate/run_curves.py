"""The losses and epochs that a run's training wrote down, read from its folder.

RUN/history.csv    step, loss, validation_iou, test_loss: a row has one value, other cells are empty
RUN/epochs.csv     epoch, step, seconds, train_loss, test_loss; runs of volumes have none
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from tlseg_jax.evaluate.table import TableLine, read_table
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
      validation: (step, IoU of the scans that validate); may be empty.
    """

    losses: Curve
    draw_losses: Curve
    epochs: tuple[Epoch, ...]
    validation: Curve = ()

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
    history = _lines(path, ("step", "loss"))
    losses = [(r.whole("step"), v) for r in history if (v := r.any_number("loss")) is not None]
    if not any(math.isfinite(v) for _, v in losses):
        raise InputError(f"{path} holds no finite training loss: train the run again.")
    draws, validation = (
        sorted((r.whole("step"), v) for r in history if (v := r.any_number(column)) is not None)
        for column in ("test_loss", "validation_iou")
    )
    epochs = [
        Epoch(r.whole("epoch"), r.whole("step"), r.number_of("seconds"), r.any_number("test_loss"))
        for r in _lines(folder / "epochs.csv", ("epoch", "step", "seconds"))
    ]
    return RunCurves(sorted(losses), draws, tuple(sorted(epochs, key=lambda e: e.epoch)), validation)


def _lines(path: Path, columns: Sequence[str]) -> list[TableLine]:
    rows = enumerate(read_table(path, columns), 2)
    return [TableLine(path, i, cells, "the file is damaged, so make the run again") for i, cells in rows]
