"""CSV tables, written whole or not at all, and a line of one read strictly."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write a CSV file, whole or not at all, into a folder that exists; a column that a row lacks is left empty."""
    with replacing(path, newline="") as f:
        writer = csv.DictWriter(f, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with at least `columns`; empty if there is no such file.

    Raises:
      InputError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as f:
            reader = csv.DictReader(f)
            rows = list(reader)
            found = reader.fieldnames or []
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path} cannot be read ({e}): move it away and evaluate again.") from None
    missing = [c for c in columns if c not in found]
    if missing or any(None in r or None in r.values() for r in rows):
        fault = f"lacks the column '{missing[0]}'" if missing else "has a row of another length"
        raise InputError(f"{path} {fault}: it is not a table of ours; move it away and evaluate again.")
    return rows


@dataclasses.dataclass(frozen=True)
class TableLine:
    """A line of a file, with what its messages name.

    Attributes:
      path: the file.
      number: of the line, from 1.
      cells: column -> text.
      remedy: what to do about a fault.
      kind: what such a line is called.
    """

    path: Path
    number: int
    cells: Mapping[str, str | None]
    remedy: str
    kind: str = "line"

    def fault(self, text: str) -> InputError:
        """What is wrong with it, to be raised."""
        return InputError(f"{self.path} {self.kind} {self.number}: {text}; {self.remedy}.")

    def text(self, column: str) -> str:
        """A cell that must not be empty. Raises InputError."""
        value = self.cells[column]
        if not value:
            raise self.fault(f"'{column}' is empty")
        return value

    def whole(self, column: str) -> int:
        """A whole number of 0 or more. Raises InputError."""
        value = self.text(column)
        if not (value.isascii() and value.isdigit()):
            raise self.fault(f"'{column}' is '{value}', not a whole number of 0 or more")
        return int(value)

    def any_number(self, column: str) -> float | None:
        """A number, also below 0 or not finite, or None where the cell is missing or empty. Raises InputError."""
        value = (self.cells.get(column) or "").strip()
        try:
            return float(value) if value else None
        except ValueError:
            raise self.fault(f"'{column}' is '{value}', not a number") from None

    def number_of(self, column: str, most: float = math.inf) -> float:
        """A number from 0 to `most`. Raises InputError."""
        value = self.text(column)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and 0 <= number <= most):
            limits = f"between 0 and {most:g}" if math.isfinite(most) else "of 0 or more"
            raise self.fault(f"'{column}' is '{value}', not a number {limits}")
        return number

    def optional(self, column: str) -> float | None:
        """A number of 0 or more, or None where the cell is empty. Raises InputError."""
        return self.number_of(column) if self.cells[column] else None

    def agreement(self, iou: str, dice: str, tolerance: float) -> tuple[float, float]:
        """IoU and Dice from the columns of these names; of one that is missing or empty the value that the other gives.

        Args:
          iou: a column.
          dice: a column.
          tolerance: how far a Dice may be from the IoU's, for how they were rounded.

        Raises:
          InputError: neither is there, one is not between 0 and 1, or they do not belong together.
        """
        i = self.number_of(iou, 1.0) if self.cells.get(iou) else None
        if i is None:
            d = self.number_of(dice if dice in self.cells else iou, 1.0)
            return d / (2 - d), d
        if not self.cells.get(dice):
            return i, 2 * i / (1 + i)
        d = self.number_of(dice, 1.0)
        if abs(d - 2 * i / (1 + i)) > tolerance:
            raise self.fault(f"an IoU of {i:g} and a Dice of {d:g} do not belong together (Dice = 2 IoU / (1 + IoU))")
        return i, d
