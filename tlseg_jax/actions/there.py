"""What can be told of a call by looking at its paths: before anything slow is imported, read or compiled.

Commands ask before they import what they need, which takes seconds, and functions before they work; `check` is both's.
What is slow to import is therefore not imported here. Addresses in buckets are left to those who reach them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.checkpoints.shipped import shipped_model, shipped_names
from tlseg_jax.datasets.factors import is_factor_name
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import check_can_be_made

Given = Mapping[str, Any]
"""Setting -> value, as the user wrote it."""

Look = Callable[[Given], None]
"""Raises InputError where a setting names what is not there or cannot be made."""


def check(command: str, given: Given) -> None:
    """Refuse a call whose paths lead nowhere.

    Args:
      given: what was given to it; arrays, models and what else is no path are let pass.

    Raises:
      InputError: a file or folder to read is not there, one to write cannot be made, or no model or prepared data set
        has a name.
    """
    for look in _LOOKS.get(command, ()):
        look(given)


def settings_looked_at() -> frozenset[str]:
    """The settings that `check` may name in its messages."""
    return frozenset(
        {"input", "mask", "source", "store", "workdir", "output", "run", "pretrained", "model", "label_maps"}
    )


def _there(name: str) -> Look:
    """A file or folder to read."""

    def look(given: Given) -> None:
        _check_there(name, _path(given, name))

    return look


def _runs(name: str) -> Look:
    """A run, several, or the name of a model that comes with the package."""

    def look(given: Given) -> None:
        for one in _path(given, name).split(","):
            if one not in shipped_names():
                _check_there(name, one)

    return look


def _shipped(name: str) -> Look:
    """A model that comes with the package."""

    def look(given: Given) -> None:
        if text := _path(given, name):
            shipped_model(text)

    return look


def _folder(name: str, above: bool = False) -> Look:
    """A folder to write to, made where it is missing; `above`: that of a file or folder to write."""

    def look(given: Given) -> None:
        if text := _path(given, name):
            check_can_be_made(Path(text).absolute().parent if above else Path(text))

    return look


def _prepared(name: str, usual: str = "") -> Look:
    """A data set, or several, that the folder `store` holds, where that is given; "none" is none.

    Args:
      usual: its value where it is not given.
    """

    def look(given: Given) -> None:
        store, names = _path(given, "store"), _path(given, name) or usual
        if not store or names in ("", "none"):
            return
        _check_there("store", store)
        from tlseg_jax.preprocess.store.any_store import check_prepared  # for those alone that have a store

        for one in names.split(","):
            if not is_factor_name(one):  # which is drawn where it is missing
                check_prepared(Path(store), one)

    return look


def _check_there(name: str, text: str) -> None:
    if text and not Path(text).exists():
        raise InputError(f"`{name}={text}` does not exist: check the path.")


def _path(given: Given, name: str) -> str:
    """The path that a setting has; empty where it has none, or an address in a bucket."""
    value = given.get(name)
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    return "" if "://" in text else text


_LOOKS: Mapping[str, tuple[Look, ...]] = {
    "prepare": (_there("source"), _folder("store")),
    "pretrain": (_prepared("pretask"), _folder("workdir")),
    "finetune": (_runs("pretrained"), _prepared("pretask"), _prepared("task", "hdt_c"), _folder("workdir")),
    "evaluate": (_runs("run"), _prepared("dataset")),
    "predict": (_shipped("model"), _runs("run"), _there("input"), _there("mask"), _folder("output", above=True)),
    "export": (_runs("run"), _folder("output", above=True)),
    "postprocess": (_runs("run"), _prepared("dataset")),
    "sweep": (_prepared("task"), _there("label_maps"), _folder("workdir")),
    "report": (_there("workdir"),),
}
"""Command -> what is looked at, in the order in which faults are told."""
