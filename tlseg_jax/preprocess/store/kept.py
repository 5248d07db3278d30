"""The settings that a folder of a store was prepared with, kept beside its subjects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.preprocess.store.records import read_json_if_any
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json


def settings_that_differ_from(folder: Path, ours: Mapping[str, Any]) -> str:
    """In which settings what is prepared in `folder` differs from `ours`, in words; empty if in none."""
    theirs = read_json_if_any(folder / "settings.json")
    if theirs is None:
        return ""
    return "; ".join(
        f"{k} was {theirs.get(k)!r} and is now {ours.get(k)!r}"
        for k in sorted(ours.keys() | theirs.keys())
        if ours.get(k) != theirs.get(k)
    )


def check_kept(folder: Path, ours: Mapping[str, Any], overwrite: bool) -> None:
    """Note our settings, before the first subject is written.

    Raises:
      InputError: the folder was prepared with others, and is not to be overwritten.
    """
    differ = settings_that_differ_from(folder, ours)
    if differ and not overwrite:
        raise InputError(
            f"{folder} was prepared with other settings ({differ}): choose another `store` or `name`, or "
            "prepare it anew with `overwrite`."
        )
    if differ:  # it would describe volumes that are about to be replaced
        (folder / "manifest.json").unlink(missing_ok=True)
    write_json(folder / "settings.json", dict(ours))
