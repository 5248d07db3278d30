"""Checks that a spec makes of the plain values it is read from."""

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tlseg_jax.runtime.bounds import Bound, Read
from tlseg_jax.runtime.errors import InputError

_LABEL = int | str
_COUNTS = {2: "two", 3: "three"}


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
        raise InputError(f"{where} lacks the field '{key}': add it (docs/your-data.md has an example).")


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


def value_as(hint: Any, value: Any, said: str) -> Any:
    """A plain value, as of JSON or TOML, as a field's type has it: lists are tuples, and text is read where it can be.

    Args:
      hint: the type.
      value: what was read.
      said: what it is, for the message.

    Raises:
      InputError: it is no such value.
    """
    try:
        return _as(hint, value)
    except (TypeError, ValueError):
        raise InputError(f"{said} must be {_wanted(hint)}.") from None
    except InputError as e:
        raise InputError(f"{said}: {e}") from None


def list_from(hint: Any, parts: Sequence[str], said: str) -> tuple[Any, ...]:
    """A field that is a list, from its parts as text: what a command reads between commas.

    Args:
      hint: the type, `tuple[X, ...]` or one of a fixed length.
      parts: one text for each value.
      said: what it is, for the message.

    Raises:
      InputError: a part cannot be read, or there are more or fewer than the type has.
    """
    each = get_args(kind_of(hint).plain)
    if each[-1] is Ellipsis:
        each = (each[0],) * len(parts)
    if len(each) != len(parts):
        raise InputError(f"{said} must be {len(each)} numbers, with a comma between them.")
    found = []
    for of, part in zip(each, parts, strict=True):
        kind = kind_of(of)
        try:
            found.append(kind.read(part) if kind.read else kind.plain(part) if kind.plain in (int, float) else part)
        except ValueError:
            raise InputError(f"{said} must be {len(each)} numbers, with a comma between them.") from None
        except InputError as e:
            raise InputError(f"{said}: {e}") from None
    return tuple(found)


def is_list(hint: Any) -> bool:
    """Whether a field's values are lists."""
    return get_origin(kind_of(hint).plain) is tuple


@dataclasses.dataclass(frozen=True)
class FieldKind:
    """A field's type, taken apart: what remains of it besides None, and what is said of its values."""

    plain: Any
    bound: Bound
    read: Callable[[str], Any] | None


def kind_of(hint: Any) -> FieldKind:
    """A type such as `Annotated[int, Bound(1)] | None`, taken apart; of several types at once it is text."""
    bound, read = Bound(), None
    while get_origin(hint) in (Annotated, Union, types.UnionType) and hint != _LABEL:
        if get_origin(hint) is Annotated:
            hint, *said = get_args(hint)
            bound = next((s for s in said if isinstance(s, Bound)), bound)
            read = next((s.read for s in said if isinstance(s, Read)), read)
        else:
            parts = [p for p in get_args(hint) if p is not types.NoneType]
            hint = parts[0] if len(parts) == 1 else str
    return FieldKind(hint, bound, read)


def _as(hint: Any, value: Any) -> Any:
    if value is None and _may_be_none(hint):
        return None
    kind = kind_of(hint)
    plain, bound = kind.plain, kind.bound
    if kind.read and (isinstance(value, str) or is_number(value, whole=True)):  # a number is checked as its text is
        return kind.read(str(value))
    parts = get_args(plain)
    if get_origin(plain) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        each = (parts[0],) * len(value) if parts[-1] is Ellipsis else parts
        return tuple(_as(h, v) for h, v in zip(each, value, strict=True))
    if get_origin(plain) is Literal:
        right = isinstance(value, str) and value in parts
    elif plain == _LABEL:
        right = is_label(value)
    elif plain is Path:
        return Path(value)
    elif plain in (int, float):
        right = is_number(value, plain is int) and math.isfinite(value)
        right = right and (bound.least is None or value >= bound.least) and (bound.most is None or value <= bound.most)
    else:
        right = isinstance(value, plain)
    if not right:
        raise ValueError
    return float(value) if plain is float else value  # 2 and 2.0 are one setting, also where its text is compared


def _may_be_none(hint: Any) -> bool:
    return types.NoneType in get_args(hint) or (get_origin(hint) is Annotated and _may_be_none(get_args(hint)[0]))


def _wanted(hint: Any) -> str:
    """A type in words."""
    plain = kind_of(hint).plain
    parts = get_args(plain)
    if get_origin(plain) is Literal:
        return f"one of {', '.join(parts)}"
    if get_origin(plain) is tuple and parts[-1] is not Ellipsis:
        return f"{_COUNTS[len(parts)]} {_several(parts[0])}"
    if get_origin(plain) is tuple:
        return f"a list of {_several(parts[0])}" + (", as in [[1, 2], [2]]" if parts[0] == tuple[_LABEL, ...] else "")
    if plain in (int, float):
        return f"a {_several(hint)}".replace("numbers", "number")
    words = {bool: "true or false", str: "text", Path: "a path", list: "a list", dict: "a table of names and values"}
    return words[plain]


def _several(hint: Any) -> str:
    plain, bound = (kind := kind_of(hint)).plain, kind.bound
    if get_origin(plain) is tuple:
        parts = get_args(plain)
        return f"lists of {'two ' if parts[-1] is not Ellipsis else ''}{_several(parts[0])}"
    if plain == _LABEL:
        return "whole numbers (or names of segments)"
    if plain is str:
        return "names"
    bounds = "" if bound.least is None else f", {bound.least:g} or more"
    if bound.least is not None and bound.most is not None:
        bounds = f" between {bound.least:g} and {bound.most:g}"
    return f"{'whole ' if plain is int else ''}numbers{bounds}"
