"""CSV tables, written whole or not at all."""

import csv
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
