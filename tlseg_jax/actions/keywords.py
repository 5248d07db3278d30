"""Settings made of keyword arguments: a field's name is the keyword, and its type and bounds are checked."""

import csv
import dataclasses
import difflib
import os
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

from tlseg_jax.actions import there
from tlseg_jax.datasets.fields import is_list, is_number, list_from, value_as
from tlseg_jax.runtime.errors import InputError

S = TypeVar("S")


class Keywords:
    """The keyword arguments of one call, of which several settings take their own."""

    def __init__(self, call: str, given: Mapping[str, Any]) -> None:
        """Take none yet.

        Args:
          call: name of the function, for messages.
          given: keyword -> value; paths may be any `os.PathLike`.
        """
        self._call, self._known = call, set[str]()
        self._given = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in given.items()}

    def given(
        self, of: type, *, only: Collection[str] | None = None, leave_out: Collection[str] = ()
    ) -> dict[str, Any]:
        """Field -> value, of the fields of a settings dataclass that were given.

        Args:
          only: its fields that are keywords; None: all but those of `leave_out`.
          leave_out: its fields that are none.

        Raises:
          InputError: a value is not of the field's type, or out of its bounds.
        """
        names = [f.name for f in dataclasses.fields(of)] if only is None else only
        hints, found = get_type_hints(of, include_extras=True), {}
        for name in names:
            if name in leave_out:
                continue
            self._known.add(name)
            if name in self._given:
                value = self._given[name]
                said = f"`{name}={value}`"
                if is_list(hints[name]) and (isinstance(value, str) or is_number(value, whole=False)):
                    value = list_from(hints[name], _between_commas(str(value)), said)
                found[name] = value_as(hints[name], value, said)
        return found

    def settings(
        self,
        of: type[S],
        *,
        only: Collection[str] | None = None,
        leave_out: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> S:
        """The settings, with `more` for fields that are no keywords, or are made of one's value.

        Args:
          defaults: field -> this call's default, in place of the field's.
          more: field -> value.

        Raises:
          InputError: see `given`; or a field that has no default was not given.
        """
        values = {**(defaults or {}), **self.given(of, only=only, leave_out=leave_out), **more}
        for field in dataclasses.fields(of):  # type: ignore[arg-type]
            if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
                raise InputError(f"`{field.name}` is missing: give it, or see help(tlseg_jax.{self._call}).")
        return of(**values)

    def check(self) -> None:
        """Refuse what can be told to be wrong before any work.

        Raises:
          InputError: a keyword was given that nothing takes, where the nearest is suggested; or see `there.check`.
        """
        for name in self._given:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(self._known))}."
                raise InputError(f"tlseg_jax.{self._call} has no setting '{name}': {hint}")
        there.check(self._call, self._given)


def _between_commas(text: str) -> list[str]:
    """A list as it is written on the command line, where a part with a comma in it stands between double quotes."""
    return [part.strip() for row in csv.reader([text]) for part in row]
