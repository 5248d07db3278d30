"""What a finished run left in its folder, read for the comparison of models A, B and C.

    RUN/history.csv    step, loss, validation_iou, test_loss: a row has one value, other cells are empty
    RUN/epochs.csv     epoch, step, seconds, train_loss, test_loss
    RUN/subjects.csv   a row a volume and test set
    RUN/summary.json   "test_sets": {name: {..., "detection": {...} or null}}
    RUN/settings.json  "job": {...}
"""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.evaluate.results import COLUMNS
from tlseg_jax.evaluate.table import read_table
from tlseg_jax.runtime.errors import InputError

Curve = Sequence[tuple[int, float]]
"""(step, value) pairs in any order."""

MODELS: Mapping[str, str] = {
    "A": "trained from scratch",
    "B": "started from the pre-trained model",
    "C": "started from the pre-trained model, its first layers frozen",
}
"""The three models of Wang & Tang 2020, section 3.2.3."""


@dataclasses.dataclass(frozen=True)
class CompareRun:
    """One finished run of the comparison.

    Attributes:
      model: "A", "B" or "C".
      seed: of its parameters and order.
      n: labelled volumes it was trained on; None for all.
      folder: the run folder.
    """

    model: str
    seed: int
    n: int | None
    folder: Path

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model {self.model!r} is not one of {', '.join(MODELS)}")


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One row of epochs.csv.

    Attributes:
      epoch: counted from 1.
      step: the last step of the epoch.
      seconds: of training alone.
      train_loss: mean over the epoch; None where the cell is empty.
      test_loss: of the whole test set at the epoch's end; None where the cell is empty.
    """

    epoch: int
    step: int
    seconds: float
    train_loss: float | None
    test_loss: float | None


@dataclasses.dataclass(frozen=True)
class VolumeScore:
    """One row of subjects.csv: the agreement on one volume, which is all slices of one scan together.

    Attributes:
      iou: 0 to 1.
      dice: 0 to 1.
      reference_ml: volume of the label in ml.
      predicted_ml: volume of the prediction in ml.
    """

    iou: float
    dice: float
    reference_ml: float
    predicted_ml: float


Scores = Mapping[str, Mapping[str, VolumeScore]]
"""Test set -> volume -> score."""


@dataclasses.dataclass(frozen=True, eq=False)
class RunTables:
    """All that the comparison needs of one run.

    Attributes:
      run: which run.
      losses: (step, training loss of one batch).
      draw_losses: (step, loss on the fixed draw of test slices); may be empty.
      epochs: in order.
      scores: test set -> volume -> score.
      summary: summary.json.
      settings: settings.json.
    """

    run: CompareRun
    losses: Curve
    draw_losses: Curve
    epochs: tuple[Epoch, ...]
    scores: Scores
    summary: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def test_losses(self) -> Curve:
        """(step, loss on the whole test set) at the ends of epochs; may be empty."""
        return [(e.step, e.test_loss) for e in self.epochs if e.test_loss is not None]

    @property
    def seconds(self) -> float:
        """Training time of all epochs."""
        return sum(e.seconds for e in self.epochs)

    def volumes(self, test_set: str) -> Mapping[str, VolumeScore]:
        """Volume -> score on a test set.

        Raises:
          InputError: the run was not scored on it.
        """
        if test_set not in self.scores:
            there = ", ".join(self.scores) or "none"
            raise InputError(
                f"{self.run.folder / 'subjects.csv'} has no scores on {test_set} (it has: {there}): "
                "evaluate the run on that data set."
            )
        return self.scores[test_set]

    def detection(self, test_set: str) -> Mapping[str, Any] | None:
        """Tumour-wise detection on a test set, or None where it was not measured."""
        entry = self.summary["test_sets"].get(test_set)
        found = entry.get("detection") if isinstance(entry, dict) else None
        return found if isinstance(found, dict) else None


def read_run(run: CompareRun) -> RunTables:
    """Read the tables of a finished run.

    Raises:
      InputError: a file is missing or damaged.
    """
    history = _table(run.folder / "history.csv", ("step", "loss"))
    losses = [(r.whole("step"), v) for r in history if (v := r.number("loss")) is not None]
    if not any(math.isfinite(v) for _, v in losses):
        raise InputError(f"{run.folder / 'history.csv'} holds no finite training loss: train the run again.")
    draws = [(r.whole("step"), v) for r in history if (v := r.number("test_loss")) is not None]
    epochs = tuple(_epoch(r) for r in _table(run.folder / "epochs.csv", ("epoch", "step", "seconds")))
    if not epochs:
        raise InputError(f"{run.folder / 'epochs.csv'} holds no epochs: train the run for one epoch or more.")
    summary = read_json(run.folder / "summary.json")
    if not isinstance(summary.get("test_sets"), dict):
        raise InputError(f"{run.folder / 'summary.json'} has no test_sets: evaluate the run again.")
    return RunTables(
        run,
        sorted(losses),
        sorted(draws),
        tuple(sorted(epochs, key=lambda e: e.epoch)),
        read_scores(run.folder),
        summary,
        read_json(run.folder / "settings.json"),
    )


def read_scores(folder: Path) -> Scores:
    """Test set -> volume -> score, from a run folder's subjects.csv.

    Raises:
      InputError: the file is missing, damaged, or names a volume twice in one test set.
    """
    path = folder / "subjects.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the folder of a run that has been evaluated.")
    scores: dict[str, dict[str, VolumeScore]] = {}
    for i, cells in enumerate(read_table(path, COLUMNS)):
        row = _Row(path, i + 2, cells)
        volumes = scores.setdefault(cells["test_set"], {})
        if cells["subject"] in volumes:
            raise InputError(f"{path} has {cells['subject']} twice in {cells['test_set']}: evaluate the run again.")
        # A score that does not exist is NaN, so that the statistics can say that it was left out.
        iou, dice, reference, predicted = (row.number(c) for c in ("iou", "dice", "reference_ml", "predicted_ml"))
        volumes[cells["subject"]] = VolumeScore(*(_nan(v) for v in (iou, dice, reference, predicted)))
    return scores


def by_n(tables: Sequence[RunTables]) -> dict[int | None, dict[str, tuple[RunTables, ...]]]:
    """The runs by number of labelled volumes, upwards and "all" last, then by model, seeds in order.

    Raises:
      InputError: a run is there twice, or the models of one n have different seeds: their difference
        would then be one of seeds too.
    """
    groups: dict[int | None, dict[str, tuple[RunTables, ...]]] = {}
    for n in sorted({t.run.n for t in tables}, key=lambda n: (n is None, n or 0)):
        here = [t for t in tables if t.run.n == n]
        models = {
            m: tuple(sorted((t for t in here if t.run.model == m), key=lambda t: t.run.seed))
            for m in MODELS
            if any(t.run.model == m for t in here)
        }
        seeds = {m: [t.run.seed for t in runs] for m, runs in models.items()}
        every = sorted({s for own in seeds.values() for s in own})
        for m, own in seeds.items():
            if len(set(own)) != len(own):
                raise InputError(f"Model {m} with n = {name_n(n)} has a seed twice: give each run once.")
            lacking = [s for s in every if s not in own]
            if lacking:
                raise InputError(
                    f"Model {m} with n = {name_n(n)} has no run of seed {lacking[0]}, which another model has: "
                    "train it, or leave that seed out for all models."
                )
        groups[n] = models
    return groups


def name_n(n: int | None) -> str:
    """ "all" where every training volume was used."""
    return "all" if n is None else str(n)


@dataclasses.dataclass(frozen=True)
class _Row:
    path: Path
    line: int
    cells: Mapping[str, str]

    def number(self, column: str) -> float | None:
        text = (self.cells.get(column) or "").strip()
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            raise InputError(
                f"{self.path}, line {self.line}: {column} = '{text}' is not a number: the file is damaged, "
                "so make the run again."
            ) from None

    def whole(self, column: str) -> int:
        value = self.number(column)
        if value is None or not value.is_integer():
            raise InputError(
                f"{self.path}, line {self.line}: {column} is not a whole number: the file is damaged, "
                "so make the run again."
            )
        return int(value)


def _epoch(row: _Row) -> Epoch:
    seconds = row.number("seconds")
    if seconds is None:
        raise InputError(f"{row.path}, line {row.line}: seconds is empty: the file is damaged, so make the run again.")
    return Epoch(row.whole("epoch"), row.whole("step"), seconds, row.number("train_loss"), row.number("test_loss"))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _table(path: Path, columns: Sequence[str]) -> list[_Row]:
    """The rows of a CSV file that training wrote. Raises InputError if it is missing or damaged."""
    try:
        with path.open(encoding="utf-8", newline="") as f:
            reader = csv.DictReader(f)
            rows = list(reader)
            found = reader.fieldnames or []
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give the folder of a run that has trained.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path} cannot be read ({e}): make the run again.") from None
    missing = [c for c in columns if c not in found]
    if missing:
        raise InputError(f"{path} lacks the column '{missing[0]}': the file is damaged, so make the run again.")
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            raise InputError(
                f"{path}, line {i + 2} has another number of cells than the header: the file is damaged, "
                "so make the run again."
            )
    return [_Row(path, i + 2, row) for i, row in enumerate(rows)]
