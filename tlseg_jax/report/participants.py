"""What is known of the persons beside their scans: BIDS's participants.tsv, or a CSV like it."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from tlseg_jax.runtime.errors import InputError

NAMES = ("participant_id", "person", "subject")
"""Columns that name the person; the first that there is counts."""

UNKNOWN = ("", "n/a", "na", "nan")
"""Values that say nothing (BIDS writes "n/a")."""

People = Mapping[str, Mapping[str, str]]
"""Person -> column -> value, without what is unknown."""


def read_participants(path: Path, persons: Iterable[str]) -> People:
    """Read the table, of these persons alone.

    Args:
      path: tab-separated where it ends in .tsv, else by commas, with a column `NAMES` and any others, such as age, sex
        and scanner.
      persons: who was tested; a leading "sub-" does not count.

    Raises:
      InputError: the file cannot be read, names no persons or one twice, has no further column, or none of these
        persons.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.DictReader(f, delimiter="\t" if path.suffix == ".tsv" else ",")
            rows, header = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path} cannot be read ({e}): give a participants.tsv, or a CSV like it.") from None
    key = next((n for n in NAMES if n in header), None)
    columns = [c for c in header if c != key]
    if key is None or not columns or any(None in r or None in r.values() for r in rows):
        fault = (
            f"has no column {', '.join(NAMES[:-1])} or {NAMES[-1]}"
            if key is None
            else "has a row of another length than its header"
            if columns
            else f"has no column beside {key}"
        )
        raise InputError(f"{path} {fault}: give one row a person and columns such as age, sex and scanner.")
    found: dict[str, dict[str, str]] = {}
    for r in rows:
        name = _plain(r[key])
        if name in found:
            raise InputError(f"{path} has {r[key]} twice: give one row a person.")
        found[name] = {c: r[c].strip() for c in columns if r[c].strip().lower() not in UNKNOWN}
    wanted = sorted(set(persons))
    people = {p: found[_plain(p)] for p in wanted if _plain(p) in found}
    if not people:
        raise InputError(
            f"{path} has none of the {len(wanted)} persons that the study tested, such as {wanted[0]}: name them "
            f"in the column {key} as the study does."
        )
    return people


def _plain(name: str) -> str:
    return name.strip().removeprefix("sub-")
