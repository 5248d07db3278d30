"""The scores of a sweep: results.csv, one row a cell, structure and subject, read strictly and viewed by person.

The units of every statistic are persons: a person's score is first averaged over seeds and scans, as runs
with other seeds are tested on the same persons and are no independent samples.
"""

import csv
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from tlseg_jax.evaluate.table import TableLine
from tlseg_jax.runtime.errors import InputError

Role = Literal["target", "unseen", "pretask"]
"""What a row's test set is to its model: the target's own, data of a source never trained on, or the pre-task's own.

The last is of the pre-trained models themselves, whose rows have no method, and of what was fine-tuned from them."""

Measure = Literal["iou", "dice", "reference_ml", "predicted_ml", "volume_error_ml", "hd95_mm", "asd_mm"]

COLUMNS = (
    *("study", "method", "baseline", "remedy", "pretask", "freeze", "n", "scans", "seed", "fold"),
    *("role", "test_set", "structure", "subject", "person"),
    *("iou", "dice", "reference_ml", "predicted_ml", "hd95_mm", "asd_mm"),
    *("synthetic", "steps", "train_seconds", "cell"),
)
"""Columns of every results.csv, in order; earlier ones lack "structure"."""

FACTORS = ("structure", "disease", "space", "skull", "scanner", "labels")
FACTOR_COLUMNS = tuple(f"factor_{f}" for f in FACTORS)
"""Columns that a factor study has besides."""

ALL = "all"
"""In the column n: every training scan."""

PRETRAINING_DATA = "pre-training data"
"""Of a study's settings: what of it is drawn, and what it is drawn from."""

REMEDY = "remove the file and run the sweep again, which writes it from its cells"


class AllScans(int):
    """The n of runs on every training scan: one n, called "all", however many scans each fold leaves.

    As a number it is their mean, for the axis of a figure or a fit. It is no other n of that number.
    """

    def __str__(self) -> str:
        return ALL

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllScans) and int(self) == int(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((ALL, int(self)))

    def __lt__(self, other: int) -> bool:
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:  # above the same number
        return int(self) >= int(other) and self != other


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One subject scored by one cell's model.

    Attributes:
      method: name as in the paper, such as "HDT-V-FT"; "" of the pre-trained models themselves.
      baseline: method that a remedy is compared with; "" for none.
      remedy: "" for the paper's way, or what was done against fragility.
      pretask: data set of the pre-training; "none" for end to end.
      freeze: freezing rules.
      n: labelled scans of the target that were asked for; 0 where it is not known (method "").
      seed: of the run.
      fold: part of the persons that was held out; None without folds.
      role: what the test set is to the model.
      subject: name of the scan.
      iou, dice: 0 to 1.
      reference_ml, predicted_ml: volumes in ml.
      hd95_mm, asd_mm: None where not measured or not defined.
      synthetic: whether the scan is drawn.
      cell: name of the cell's folder.
      structure: what was segmented; "" where that was not written down.
      factors: factor -> level; empty outside a factor study.
    """

    study: str
    method: str
    baseline: str
    remedy: str
    pretask: str
    freeze: str
    n: int
    seed: int
    fold: int | None
    role: Role
    test_set: str
    subject: str
    person: str
    iou: float
    dice: float
    reference_ml: float
    predicted_ml: float
    hd95_mm: float | None
    asd_mm: float | None
    synthetic: bool
    steps: int
    train_seconds: float
    cell: str
    structure: str = ""
    factors: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus reference volume in ml."""
        return self.predicted_ml - self.reference_ml

    @property
    def data_set(self) -> str:
        """The test set's name without the structure's, see `evaluate.results.result_name`."""
        return self.test_set.removesuffix(f"_{self.structure}") if self.structure else self.test_set


@dataclasses.dataclass(frozen=True)
class OtherResults:
    """What another program, or a model that saw no label of the target, scores on scans of the study.

    Attributes:
      name: which, unlike every method's.
      rows: one a test set and scan, with n = 0 and `method` the name; persons of whom a scan lacks are left out.
      path: the file that they were read from.
      scores: that it has.
      unused: of these, of no scan and structure that the study tested.
    """

    name: str
    rows: tuple[ResultRow, ...]
    path: Path
    scores: int
    unused: int


@dataclasses.dataclass(frozen=True)
class Results:
    """The rows of a sweep, in the file's order.

    Attributes:
      rows: all of them.
      others: what is shown beside them; see `studies.other_results`.
    """

    rows: tuple[ResultRow, ...]
    others: tuple[OtherResults, ...] = ()

    def __iter__(self) -> Iterator[ResultRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def where(
        self,
        *,
        role: Role | None = None,
        method: str | None = None,
        n: int | None = None,
        test_set: str | None = None,
        structure: str | None = None,
        seed: int | None = None,
    ) -> "Results":
        """The rows that agree with everything given; of others, by where they were scored alone."""
        places: dict[str, object] = {"role": role, "test_set": test_set, "structure": structure}
        wanted: dict[str, object] = {"method": method, "n": n, "seed": seed}

        def agree(rows: tuple[ResultRow, ...], wanted: Mapping[str, object]) -> tuple[ResultRow, ...]:
            given = {k: v for k, v in wanted.items() if v is not None}
            return tuple(r for r in rows if all(getattr(r, k) == v for k, v in given.items()))

        others = tuple(dataclasses.replace(o, rows=agree(o.rows, places)) for o in self.others)
        return Results(agree(self.rows, places | wanted), others)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names in order of appearance; without the pre-trained models themselves."""
        return tuple(dict.fromkeys(r.method for r in self.rows if r.method))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The values of n, rising; without those of the pre-trained models themselves."""
        return tuple(sorted({r.n for r in self.rows if r.role != "pretask"}))

    @property
    def structures(self) -> tuple[str, ...]:
        """What the models were to find on the target, in order of appearance."""
        return tuple(dict.fromkeys(r.structure for r in self.rows if r.role == "target"))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, rising."""
        return tuple(sorted({r.seed for r in self.rows}))

    @property
    def synthetic(self) -> bool:
        """Whether any scan is drawn; pre-trained models' own test scans aside."""
        return any(r.synthetic for r in self.rows if r.role != "pretask")


def by_person(rows: Iterable[ResultRow], measure: Measure = "iou") -> dict[str, float]:
    """Each person's mean over the rows' seeds and scans; persons without any value are left out."""
    return by_unit(rows, lambda r: r.person, measure)


def by_unit(rows: Iterable[ResultRow], unit: Callable[[ResultRow], str], measure: Measure = "iou") -> dict[str, float]:
    """As `by_person`, for any unit, such as the scan."""
    values: dict[str, list[float]] = {}
    for row in rows:
        value: float | None = getattr(row, measure)
        if value is not None:
            values.setdefault(unit(row), []).append(value)
    return {k: math.fsum(v) / len(v) for k, v in sorted(values.items())}


def read_results(path: Path) -> Results:
    """Read and check a results.csv.

    Raises:
      InputError: it is missing, is no table of a sweep, or a row of it is not possible; the line is named.
    """
    try:
        with path.open(encoding="utf-8", newline="") as f:
            reader = csv.DictReader(f)
            header = tuple(reader.fieldnames or ())
            _check_header(path, header)
            rows: list[ResultRow] = []
            seen: dict[tuple[str, str, str, str], int] = {}
            for cells in reader:
                row = _row(TableLine(path, reader.line_num, cells, REMEDY))
                key = (row.cell, row.role, row.test_set, row.subject)
                if key in seen:
                    raise InputError(
                        f"{path} lines {seen[key]} and {reader.line_num} are both of subject {row.subject} of "
                        f"{row.test_set} in cell {row.cell}: {REMEDY}."
                    )
                seen[key] = reader.line_num
                rows.append(row)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run the sweep first, which writes it.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path} cannot be read ({e}): {REMEDY}.") from None
    if not rows:
        raise InputError(f"{path} has no rows: run the sweep until a first cell is done.")
    every = [int(r.n) for r in rows if isinstance(r.n, AllScans)]
    mean = AllScans(round(math.fsum(every) / max(len(every), 1)))
    return Results(tuple(dataclasses.replace(r, n=mean) if isinstance(r.n, AllScans) else r for r in rows))


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    missing = [c for c in COLUMNS if c not in header and c != "structure"]
    some = [c for c in FACTOR_COLUMNS if c in header]
    if some:
        missing += [c for c in FACTOR_COLUMNS if c not in header]
    if missing:
        raise InputError(f"{path} lacks the column '{missing[0]}', so it is no table of a sweep: {REMEDY}.")
    unknown = [c for c in header if c not in COLUMNS + FACTOR_COLUMNS]
    if unknown:
        raise InputError(f"{path} has a column '{unknown[0]}' that no sweep writes: {REMEDY}.")
    if len(set(header)) < len(header):
        twice = next(c for c in header if header.count(c) > 1)
        raise InputError(f"{path} has the column '{twice}' twice: {REMEDY}.")


def _row(line: TableLine) -> ResultRow:
    cells = line.cells
    if None in cells or None in cells.values():
        raise line.fault("the row has another length than the header")
    role = line.text("role")
    if role not in get_args(Role):
        raise line.fault(f"'role' is '{role}', not one of {', '.join(get_args(Role))}")
    method = cells["method"] or ""
    own = role == "pretask" and not method
    if not own:
        line.text("method")
    n = AllScans(line.whole("scans")) if cells["n"] == ALL else 0 if own and not cells["n"] else line.whole("n")
    if int(n) == 0 and not own:
        raise line.fault("'n' is 0, and a model is trained on 1 scan or more")
    synthetic = line.text("synthetic")
    if synthetic not in ("0", "1"):
        raise line.fault(f"'synthetic' is '{synthetic}', not 0 or 1")
    for measure in ("iou", "dice"):
        line.text(measure)
    iou, dice = line.agreement("iou", "dice", 1e-3)
    return ResultRow(
        study=line.text("study"),
        method=method,
        baseline=cells["baseline"] or "",
        remedy=cells["remedy"] or "",
        pretask=line.text("pretask"),
        freeze=cells["freeze"] or "",
        n=n,
        seed=line.whole("seed"),
        fold=line.whole("fold") if cells["fold"] else None,
        role=role,  # type: ignore[arg-type]  # checked above
        test_set=line.text("test_set"),
        subject=line.text("subject"),
        person=line.text("person"),
        iou=iou,
        dice=dice,
        reference_ml=line.number_of("reference_ml"),
        predicted_ml=line.number_of("predicted_ml"),
        hd95_mm=line.optional("hd95_mm"),
        asd_mm=line.optional("asd_mm"),
        synthetic=synthetic == "1",
        steps=line.whole("steps"),
        train_seconds=line.number_of("train_seconds"),
        cell=line.text("cell"),
        structure=cells.get("structure") or "",
        factors={f: v for f, c in zip(FACTORS, FACTOR_COLUMNS, strict=True) if (v := cells.get(c))},
    )
