"""Flags made from the fields of settings: name, type, default and help are the field's, so that each exists once."""

import dataclasses
import inspect
import re
import types
from collections.abc import Collection, Container, Mapping
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from absl import flags

from tlseg_jax.datasets.fields import FieldKind, is_list, kind_of, list_from, value_as
from tlseg_jax.runtime.errors import InputError

flags.disclaim_key_flags()  # a flag belongs to the module that asks for it, whose --help lists it

S = TypeVar("S")


class Flags(Generic[S]):
    """The flags of some fields of a settings dataclass.

    Attributes:
      holders: field -> its flag.
    """

    def __init__(
        self,
        of: type[S],
        holders: Mapping[str, "flags.FlagHolder[Any]"],
        hints: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> None:
        self.of, self.holders, self._hints, self._defaults = of, holders, hints, defaults

    def value(self, field: str) -> Any:
        """The value of a field's flag, or its default.

        Raises:
          InputError: it cannot be read, or is missing and has no default.
        """
        holder = self.holders[field]
        if holder.value is None:
            if self._defaults[field] is dataclasses.MISSING:
                raise InputError(f"--{holder.name} is missing: see --help.")
            return self._defaults[field]
        return _value(self._hints[field], holder.value, holder.name)

    def text(self, field: str) -> str | None:
        """What was written, unread: an address such as gs://bucket/runs is no `Path`. None: nothing was."""
        written = self.holders[field].value
        return None if written is None else str(written)

    def values(self) -> dict[str, Any]:
        """Field -> value, of all fields that have flags; for errors see `value`."""
        return {field: self.value(field) for field in self.holders}

    def given(self) -> dict[str, Any]:
        """Field -> value, of the fields whose flags have one; for errors see `value`."""
        return {field: self.value(field) for field, holder in self.holders.items() if holder.value is not None}

    def present(self) -> set[str]:
        """The fields whose flags were written, whatever their values."""
        return {field for field, holder in self.holders.items() if holder.present}

    def settings(self, **more: Any) -> S:
        """The settings, with `more` for what has no flag or is made of a flag's value; for errors see `value`."""
        return self.of(**{field: self.value(field) for field in self.holders if field not in more}, **more)


def define(
    of: type[S],
    *,
    only: Collection[str] | None = None,
    leave_out: Collection[str] = (),
    absent: Collection[str] | Literal["all"] = (),
    defaults: Mapping[str, Any] | None = None,
    before: str = "",
    after: str = "",
) -> Flags[S]:
    """Define a flag for each field of a settings dataclass.

    Args:
      of: the dataclass, whose docstring has a line for each of these fields under "Attributes:".
      only: its fields that get a flag; None: all but those of `leave_out`.
      leave_out: its fields that get none.
      absent: fields that a command leaves as something else has them: their flags' default is None.
      defaults: field -> this command's default, in place of the field's.
      before: what each help text begins with.
      after: what it ends with.
    """
    lines, hints = attribute_lines(of), get_type_hints(of, include_extras=True)
    holders, kept = {}, {}
    for field in dataclasses.fields(of):  # type: ignore[arg-type]
        if field.name in leave_out or (only is not None and field.name not in only):
            continue
        default = (defaults or {}).get(field.name, field.default)
        if absent == "all" or field.name in absent:
            default = None
        kind = kind_of(hints[field.name])
        text = _help(before + lines[field.name] + after, kind)
        holders[field.name], kept[field.name] = _flag(field.name, kind, default, text), default
    return Flags(of, holders, hints, kept)


def adopt(*modules: types.ModuleType) -> None:
    """Have the --help of the module that calls this list the flags of others, too."""
    for module in modules:
        flags.adopt_module_key_flags(module)


def flags_for(text: str, among: Container[str] | flags.FlagValues = flags.FLAGS) -> str:
    """A message of the library, with the settings that it names, as in `n` or `n=4`, written as flags: --n, --n=4."""
    return re.sub(r"`(\w+)((?:=[^`]*)?)`", lambda m: f"--{m[1]}{m[2]}" if m[1] in among else m[0], text)


def attribute_lines(of: type) -> dict[str, str]:
    """Attribute -> what a class's docstring says of it under "Attributes:", as one line."""
    doc = inspect.cleandoc(of.__doc__ or "")
    section = re.search(r"^Attributes:\n((?:[ ]{2}.*\n?|\n)+)", doc, re.MULTILINE)
    lines: dict[str, str] = {}
    for entry in re.finditer(r"^  (\w+): ((?:.+)(?:\n {4}.+)*)", section.group(1) if section else "", re.MULTILINE):
        lines[entry.group(1)] = re.sub(r"\s+", " ", entry.group(2)).strip()
    return lines


def _help(line: str, kind: FieldKind) -> str:
    """A docstring's line for users: without the places in the code, and beginning as a sentence does."""
    text = re.sub(r"(?: \(`[^)]*`\)|, `[^`]*`(?=\)))", "", line)
    begins_with_a_value = get_origin(kind.plain) is Literal and text.split(":")[0] in get_args(kind.plain)
    return text if begins_with_a_value else text[0].upper() + text[1:]


def _flag(name: str, kind: FieldKind, default: Any, text: str) -> "flags.FlagHolder[Any]":
    shown = None if default is dataclasses.MISSING else default
    if get_origin(kind.plain) is tuple:
        return flags.DEFINE_list(name, None, text)  # a default that is shown would be a value that was given
    if kind.read:
        return flags.DEFINE_string(name, None if shown is None else str(shown), text)
    if get_origin(kind.plain) is Literal:
        return flags.DEFINE_enum(name, shown, get_args(kind.plain), text)
    if kind.plain is bool:
        return flags.DEFINE_bool(name, shown, text)
    if kind.plain in (int, float):
        define: Any = flags.DEFINE_integer if kind.plain is int else flags.DEFINE_float
        return define(name, shown, text, lower_bound=kind.bound.least, upper_bound=kind.bound.most)  # type: ignore[no-any-return]
    return flags.DEFINE_string(name, None if shown is None else str(shown), text)


def _value(hint: Any, given: Any, name: str) -> Any:
    if is_list(hint):
        return list_from(hint, given, f"--{name}={','.join(given)}")
    return value_as(hint, given, f"--{name}={given}")
