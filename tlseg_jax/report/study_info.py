"""What a sweep was asked to do and how far it has come: its study.json."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.fields import value_as
from tlseg_jax.datasets.spec import Kind
from tlseg_jax.evaluate.results import IN_PERSON
from tlseg_jax.runtime.bounds import Count, Labelled, Rate
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import ALL, PRETRAINING_DATA
from tlseg_jax.studies.study import Method

REMEDY = "remove the file and run the sweep again, which writes it anew and keeps the finished cells"


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
    kind: Kind
    task: str
    unseen: tuple[str, ...]
    n: tuple[int | str, ...]
    seeds: int
    folds: int
    methods: tuple[Method, ...]
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

    def method(self, name: str) -> Method | None:
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
    kind = file.get("kind", Kind)
    if kind == "volumes" and not IN_PERSON.items() <= plain.items():
        raise InputError(
            f"{path} is of scores whose ml and mm are a template's, not the persons': run the sweep again, which "
            "scores its cells anew and trains none of them again."
        )
    methods = tuple(
        Method(
            m.get("name", str),
            m.get("pretask", str, "none"),
            freeze=m.get("freeze", str, ""),
            remedy=m.get("remedy", str, ""),
            baseline=m.get("baseline", str, ""),
            factors=m.texts("factors"),
        )
        for m in file.each("methods")
    )
    names = [m.name for m in methods]
    if len(set(names)) < len(names):
        twice = next(x for x in names if names.count(x) > 1)
        raise InputError(f"{path}: the method '{twice}' is there twice; {REMEDY}.")
    exclusions = file.inside("exclusions")
    return StudyInfo(
        name=file.get("name", str),
        kind=kind,
        task=file.get("task", str),
        unseen=file.get("unseen", Texts, ()),
        n=tuple(ALL if v is None else v for v in file.get("n", tuple[Labelled, ...], ())),
        seeds=file.get("seeds", Count),
        folds=file.get("folds", Count),
        methods=methods,
        synthetic=file.get("synthetic", bool),
        settings=file.texts("settings"),
        stores=file.texts("stores"),
        exclusions={
            name: tuple((e.get("subject", str), e.get("reason", str)) for e in exclusions.each(name))
            for name in exclusions.plain
        },
        failed=tuple((f.get("cell", str), f.get("reason", str)) for f in file.each("failed")),
        missing=file.get("missing", Texts, ()),
        seconds=file.get("seconds", Rate, 0.0),
        sections=file.get("sections", Texts, ()),
        titles=file.texts("titles"),
        folder=path.parent,
    )


Texts = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Fields:
    """A JSON object of the file, with the file and place that its messages name."""

    path: Path
    place: str
    plain: Mapping[str, Any]

    def get(self, name: str, hint: Any, *default: Any) -> Any:
        """A field's value as `hint` has it; one without a default has to be there."""
        said = f"'{self.place}{name}'"
        if name not in self.plain and default:
            return default[0]
        if name not in self.plain:
            raise InputError(f"{self.path} lacks {said}: {REMEDY}.")
        value = self.plain[name]
        try:
            return value_as(hint, value, f"{self.path}: {said}, which is {json.dumps(value)[:60]},")
        except InputError as e:
            raise InputError(f"{str(e).rstrip('.')}; {REMEDY}.") from None

    def inside(self, name: str) -> "_Fields":
        return _Fields(self.path, f"{self.place}{name}.", self.get(name, dict, {}))

    def texts(self, name: str) -> dict[str, str]:
        at = self.inside(name)
        return {k: at.get(k, str) for k in at.plain}

    def each(self, name: str) -> "list[_Fields]":
        at = _Fields(self.path, f"{self.place}{name}.", {str(i): v for i, v in enumerate(self.get(name, list, []))})
        return [at.inside(i) for i in at.plain]
