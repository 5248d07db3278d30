"""A run that has trained, as one holds it in a notebook."""

import dataclasses
from pathlib import Path
from typing import Any

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.evaluate.results import COLUMNS, format_summary
from tlseg_jax.evaluate.table import read_table
from tlseg_jax.studies.before import FOLDER as BEFORE

_TEXT = ("test_set", "structure", "subject", "person")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder, which stands wherever a path of a run does; printed it is the table of its scores.

    Attributes:
      folder: with the checkpoints, the scores and the figures.
    """

    folder: Path

    def __fspath__(self) -> str:
        """The folder, so that a run is a path."""
        return str(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: the settings that matter, and for each of its "test_sets" the means.

        Raises:
          InputError: the run has not finished, or the file is damaged.
        """
        return read_json(self.folder / "summary.json")

    @property
    def scores(self) -> list[dict[str, Any]]:
        """A row for each test set, structure and subject, as in subjects.csv: iou, dice, volumes in ml, and more.

        `pandas.DataFrame(run.scores)` makes a table of it. What was not measured is None.

        Raises:
          InputError: the file is damaged.
        """
        return _scores(self.folder)

    @property
    def scores_before(self) -> list[dict[str, Any]]:
        """As `scores`, of the start before it was fine-tuned; none where it does not segment the same structures.

        Raises:
          InputError: the file is damaged.
        """
        return _scores(self.folder / BEFORE)

    @property
    def figures(self) -> list[Path]:
        """The PNG files of the run: contours on scans, loss curves."""
        return sorted((self.folder / "figures").glob("*.png"))

    def __str__(self) -> str:
        """The means of each test set."""
        return format_summary(self.summary["test_sets"])


def _scores(folder: Path) -> list[dict[str, Any]]:
    rows = read_table(folder / "subjects.csv", COLUMNS)
    return [{k: v if k in _TEXT else _number(v) for k, v in row.items()} for row in rows]


def _number(text: str) -> Any:
    try:
        return float(text) if text else None
    except ValueError:
        return text
