"""The study that a call asks for: a built-in one or a file, with what the call changes in it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tlseg_jax.datasets.factors import is_factor_name
from tlseg_jax.runtime.bounds import Read
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.study import Study, read_study_file


def _number_or(word: str) -> Read:
    """Text that is a number from 1, or a word, which is None."""

    def read(text: str) -> int | None:
        if text == word:
            return None
        if not text.isdigit() or int(text) < 1:
            raise InputError(f"'{text}' is not usable: give {word}, or 1 or more.")
        return int(text)

    return Read(read)


@dataclasses.dataclass(frozen=True)
class Sweeping:
    """Which study is run, and on what.

    Attributes:
      study: brain, liver, factors, remedies, or a TOML file of your own.
      methods: some of the study's methods; not given: all.
      pretask: what every pre-trained method starts from, in place of the study's.
      plan: print the cells, what is done, and the time and memory of the rest; then stop.
      devices: how many devices run cells at the same time, or all.
      together: cells of one program that train at once on a device; not given, or auto: what a few measured steps say.
    """

    study: str
    methods: tuple[str, ...] = ()
    pretask: str | None = None
    plan: bool = False
    devices: Annotated[int | None, _number_or("all")] = 1
    together: Annotated[int | None, _number_or("auto")] = None


BUILT_IN = Path(__file__).parent / "files"
"""The TOML files of the studies that are known by name."""


def choose_study(asked: Sweeping, changes: Mapping[str, Any]) -> Study:
    """The study that is asked for; `changes` are field of `Study` -> value in place of the study's.

    Raises:
      InputError: there is no such study, or it has no such method.
    """
    known = {p.stem: p for p in sorted(BUILT_IN.glob("*.toml"))}
    if asked.study not in known and not asked.study.endswith(".toml"):
        raise InputError(
            f"There is no study named '{asked.study}': choose from {', '.join(known)}, or give a .toml file."
        )
    study = read_study_file(known.get(asked.study, Path(asked.study)))
    if (changes.get("label_maps") or study.label_maps) and not any(map(is_factor_name, study.pretasks)):
        raise InputError(
            f"`label_maps` is for the data sets of a factor study, and {study.name} has none: leave it out, or choose "
            "a study with [factors]."
        )
    if asked.methods:
        theirs = {m.name: m for m in study.methods}
        chosen = {choose("method of this study", name, theirs).name for name in asked.methods}
        study = dataclasses.replace(study, methods=tuple(m for m in study.methods if m.name in chosen))
    if asked.pretask:
        start = asked.pretask
        methods = (
            m if m.pretask == "none" else dataclasses.replace(m, pretask=start, pretrained="") for m in study.methods
        )
        study = dataclasses.replace(study, methods=tuple(methods))
    return dataclasses.replace(study, **changes)
