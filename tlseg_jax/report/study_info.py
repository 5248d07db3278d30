"""What a sweep was asked to do and how far it has come: its study.json."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tlseg_jax.evaluate.results import IN_PERSON
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import ALL, PRETRAINING_DATA

REMEDY = "remove the file and run the sweep again, which writes it anew and keeps the finished cells"


@dataclasses.dataclass(frozen=True)
class StudyMethod:
    """One way to train.

    Attributes:
      name: as in the paper, such as "HDT-V-FT".
      pretask: data set of the pre-training; "none" for end to end.
      freeze: freezing rules.
      remedy: "" for the paper's way.
      baseline: method that a remedy is compared with; "" for none.
      factors: factor -> level of the pre-training data; empty outside a factor study.
    """

    name: str
    pretask: str = "none"
    freeze: str = ""
    remedy: str = ""
    baseline: str = ""
    factors: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class StudyInfo:
    """A study as its sweep wrote it down.

    Attributes:
      name: of the study.
      kind: whether the scans are volumes (brain) or slices (liver).
      task: the target data set.
      unseen: generalisation data sets.
      n: numbers of labelled scans, or "all", in the study's order.
      seeds: runs a method and n.
      folds: parts that the persons are split into; 0 for one fixed test set.
      methods: in the order that figures show them.
      synthetic: whether the scans are drawn.
      settings: what the report lists, in words.
      stores: test set -> folder of the prepared data set.
      exclusions: data set -> scans that were left out, each with the reason.
      failed: cells that failed, each with the reason.
      missing: names of cells not done yet.
      seconds: wall-clock time so far.
      sections: of the report, by name and in order; empty: the usual ones.
      titles: section -> heading in place of its own.
      folder: of the sweep, with the cells.
      figures: where a report's figures go.
      structure: which one of several a part of the report is of; "" for all that there are.
      recommended: method and n that the page's answer names, for the parts of the report that are of one structure.
      people: person -> column -> value, of a participants.tsv that the report was given.
    """

    name: str
    kind: Literal["volumes", "slices"]
    task: str
    unseen: tuple[str, ...]
    n: tuple[int | str, ...]
    seeds: int
    folds: int
    methods: tuple[StudyMethod, ...]
    synthetic: bool
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    stores: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    exclusions: Mapping[str, tuple[tuple[str, str], ...]] = dataclasses.field(default_factory=dict, hash=False)
    failed: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    sections: tuple[str, ...] = ()
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    folder: Path = Path()
    figures: Path = Path("figures")
    structure: str = ""
    recommended: tuple[str, int] | None = None
    people: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict, hash=False)

    def cell(self, name: str) -> Path:
        """The run folder of a cell."""
        return self.folder / "cells" / name

    def method(self, name: str) -> StudyMethod | None:
        """The method of that name, if the study has it."""
        return next((m for m in self.methods if m.name == name), None)

    @property
    def drawn(self) -> str:
        """What was drawn of the data that models were pre-trained on, in words; "" for nothing."""
        return self.settings.get(PRETRAINING_DATA, "")

    @property
    def has_factors(self) -> bool:
        """Whether any method's pre-training data set is a point of a factorial design."""
        return any(m.factors for m in self.methods)


def read_study(path: Path) -> StudyInfo:
    """Read and check a study.json.

    Raises:
      InputError: it is missing, damaged, or a field of it is not what a sweep writes; the field is named.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run the sweep first, which writes it.") from None
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read ({e}): {REMEDY}.") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path} is not a study of ours: {REMEDY}.")
    file = _Fields(path, "", plain)
    kind = file.text("kind")
    if kind not in ("volumes", "slices"):
        raise InputError(f"{path}: 'kind' is '{kind}', neither volumes nor slices; {REMEDY}.")
    if kind == "volumes" and not IN_PERSON.items() <= plain.items():
        raise InputError(
            f"{path} is of scores whose ml and mm are a template's, not the persons': run the sweep again, which "
            "scores its cells anew and trains none of them again."
        )
    methods = tuple(
        StudyMethod(
            m.text("name"),
            m.text("pretask", "none"),
            m.text("freeze", ""),
            m.text("remedy", ""),
            m.text("baseline", ""),
            m.texts("factors"),
        )
        for m in file.each("methods")
    )
    names = [m.name for m in methods]
    if len(set(names)) < len(names):
        twice = next(x for x in names if names.count(x) > 1)
        raise InputError(f"{path}: the method '{twice}' is there twice; {REMEDY}.")
    at = file.items_of("n")
    return StudyInfo(
        name=file.text("name"),
        kind=kind,  # type: ignore[arg-type]  # checked above
        task=file.text("task"),
        unseen=file.list_of("unseen", str),
        n=tuple(ALL if v == ALL else at.get(i, int) for i, v in at.plain.items()),
        seeds=file.whole("seeds"),
        folds=file.whole("folds"),
        methods=methods,
        synthetic=file.get("synthetic", bool),
        settings=file.texts("settings"),
        stores=file.texts("stores"),
        exclusions={
            name: tuple(
                (e.text("subject"), e.text("reason"))
                for e in _Fields(path, "exclusions.", file.get("exclusions", dict, {})).each(name)
            )
            for name in file.get("exclusions", dict, {})
        },
        failed=tuple((f.text("cell"), f.text("reason")) for f in file.each("failed")),
        missing=file.list_of("missing", str),
        seconds=file.seconds("seconds"),
        sections=file.list_of("sections", str),
        titles=file.texts("titles"),
        folder=path.parent,
    )


_REQUIRED: Any = object()


@dataclasses.dataclass(frozen=True)
class _Fields:
    """A JSON object of the file, with the file and place that its messages name."""

    path: Path
    place: str
    plain: Mapping[str, Any]

    def get(self, name: str, kind: type, default: Any = _REQUIRED) -> Any:
        value = self.plain.get(name, default)
        if value is _REQUIRED:
            raise InputError(f"{self.path} lacks '{self.place}{name}': {REMEDY}.")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(
                f"{self.path}: '{self.place}{name}' is {json.dumps(value)[:60]}, not {_WORDS[kind]}; {REMEDY}."
            )
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        return str(self.get(name, str, default))

    def whole(self, name: str) -> int:
        value = self.get(name, int)
        if value < 0:
            raise InputError(f"{self.path}: '{self.place}{name}' is {value}, below 0; {REMEDY}.")
        return int(value)

    def seconds(self, name: str) -> float:
        value = self.plain.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise InputError(f"{self.path}: '{name}' is {json.dumps(value)[:60]}, not a time in seconds; {REMEDY}.")
        return float(value)

    def items_of(self, name: str) -> "_Fields":
        values = self.get(name, list, [])
        return _Fields(self.path, f"{self.place}{name}.", {str(i): v for i, v in enumerate(values)})

    def list_of(self, name: str, kind: type) -> tuple[Any, ...]:
        at = self.items_of(name)
        return tuple(at.get(i, kind) for i in at.plain)

    def texts(self, name: str) -> dict[str, str]:
        values = self.get(name, dict, {})
        at = _Fields(self.path, f"{self.place}{name}.", values)
        return {k: at.text(k) for k in values}

    def each(self, name: str) -> "list[_Fields]":
        return [_Fields(self.path, f"{self.place}{name}.{i}.", v) for i, v in enumerate(self.list_of(name, dict))]


_WORDS: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table of names and values",
}
