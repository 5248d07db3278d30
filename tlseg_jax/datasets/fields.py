"""Checks that a spec of either kind makes of the plain values it is read from."""

import difflib
from collections.abc import Collection

from tlseg_jax.runtime.errors import InputError


def check_known(given: Collection[str], fields: Collection[str], where: str) -> None:
    """Refuse a field that does not exist; the nearest is suggested.

    Raises:
      InputError: a name of `given` is not among `fields`.
    """
    for key in given:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(fields)}."
            raise InputError(f"{where} has an unknown field '{key}': {hint}")


def check_none_missing(missing: Collection[str], where: str) -> None:
    """Refuse a spec that lacks fields.

    Raises:
      InputError: some are missing; the first is named.
    """
    for key in missing:
        raise InputError(f"{where} lacks the field '{key}': add it (see the README for an example).")


def check_folder_name(name: str, where: str) -> None:
    """Refuse a name that cannot be a folder's.

    Raises:
      InputError: it is empty, hidden or holds a slash or a space.
    """
    if not name or any(c in name for c in "/\\ ") or name.startswith("."):
        raise InputError(f"{where}: the name '{name}' names a folder: use letters, digits, '-' and '_'.")


def is_number(value: object, whole: bool) -> bool:
    """Whether a value is a number, and a whole one where that is asked for; true and false are none."""
    return not isinstance(value, bool) and isinstance(value, int if whole else (int, float))


def is_label(value: object) -> bool:
    """Whether a value says which voxels of a label map are meant: a whole number, or the name of a segment."""
    return is_number(value, True) or (isinstance(value, str) and bool(value.strip()))


def label_from(text: str) -> int | str:
    """A label as it is written on the command line: a number where it is one, else the name of a segment."""
    try:
        return int(text)
    except ValueError:
        return text.strip()
