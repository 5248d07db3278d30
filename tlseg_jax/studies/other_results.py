"""Scores of another program, or of a model that saw no label of the target, on the scans of a study.

They come from a table with a row a scan and structure (our own `subjects.csv`, or any with the columns "subject" and
"dice" or "iou", and "structure" and "test_set" where there are several), or from the `summary.json` that nnU-Net v2's
evaluation writes, in which label k is the study's k-th structure.
"""

import csv
import dataclasses
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from tlseg_jax.evaluate.table import TableLine
from tlseg_jax.preprocess.reading.formats import extension_of, plain_name
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import OtherResults, ResultRow, Results

MOST = 8
"""Others that a figure can tell apart."""

READ = ("subject", "structure", "test_set", "iou", "dice")
"""Columns that are read; a person is who the study says."""

ROUNDED = 0.02
"""How far a Dice may be from its IoU's, where both were rounded to two decimals."""

UNNAMED = {"", "structure"}
"""What a structure is called that nobody named."""

_WRITE = "write a row a scan and structure with its Dice or IoU as a fraction from 0 to 1, and each once"


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a score of the file belongs, as the file names it; "" where it does not say."""

    data_set: str
    structure: str
    subject: str


_Scores = dict[_Place, tuple[float, float]]
"""IoU and Dice."""


def named_files(texts: Sequence[str]) -> dict[str, Path]:
    """Files by name from texts such as "MeshNet:meshnet.csv".

    Raises:
      InputError: one is not of that form, a name cannot stand in a figure, or there are two of it or too many.
    """
    out: dict[str, Path] = {}
    for text in texts:
        name, colon, file = (p.strip() for p in text.partition(":"))
        if not colon or not file or not re.fullmatch(r"[^\W_][\w .+()-]{0,39}", name):
            raise InputError(
                f"`compare={text}` cannot be read: write NAME:FILE, as in MeshNet:meshnet.csv, with a name of up to 40 "
                "letters, digits, spaces and . _ + - ( )."
            )
        if name in out:
            raise InputError(f"`compare` has two files named '{name}': give each a name of its own.")
        out[name] = Path(file)
    if len(out) > MOST:
        raise InputError(f"`compare` has {len(out)} files, and a figure tells {MOST} apart: give fewer.")
    return out


def with_others(results: Results, files: Mapping[str, Path]) -> Results:
    """The study's results with those of others, each by name from a file of scores, beside them.

    Raises:
      InputError: a file cannot be read, holds what is no score or one twice, or has no scan that the study tested; or a
        name is a method's.
    """
    for name in files:
        if name in results.methods:
            raise InputError(f"`compare` names '{name}', as the study names a method: give it another name.")
    return dataclasses.replace(results, others=tuple(_other(results, n, path) for n, path in files.items()))


def whole_persons(
    rows: Iterable[ResultRow], ours: Iterable[ResultRow], place: Callable[[ResultRow], str]
) -> tuple[ResultRow, ...]:
    """The rows of persons of whom nothing lacks that the study has (`ours`).

    Args:
      place: what a person is scored on as a whole: a test set, or all structures of a data set.
    """

    def parts(some: Iterable[ResultRow]) -> dict[tuple[str, str, str], set[tuple[str, str]]]:
        out: dict[tuple[str, str, str], set[tuple[str, str]]] = {}
        for r in some:
            out.setdefault((r.role, place(r), r.person), set()).add((r.subject, r.structure))
        return out

    rows = tuple(rows)
    wanted, there = parts(ours), parts(rows)
    return tuple(r for r in rows if there[k := (r.role, place(r), r.person)] >= wanted[k])


def _other(results: Results, name: str, path: Path) -> OtherResults:
    tested = [r for r in results if r.role != "pretask"]
    # A scan's row at any n and seed has all that is not of the model.
    scans = list({(r.role, r.test_set, r.subject): r for r in tested}.values())
    scores = _read(path, results.structures)
    found = _match(path, scores, scans)
    if not found:
        raise InputError(_nothing(path, scores, scans))
    rows = [_row(name, row, *scores[place]) for row, place in found.items()]
    unused = len(scores) - len(set(found.values()))
    return OtherResults(name, whole_persons(rows, tested, lambda r: r.test_set), path, len(scores), unused)


def _row(name: str, ours: ResultRow, iou: float, dice: float) -> ResultRow:
    """What the study has of a scan, with the scores of another."""
    return dataclasses.replace(
        ours,
        method=name,
        baseline="",
        remedy="",
        pretask="none",
        freeze="",
        n=0,
        seed=0,
        fold=None,
        iou=iou,
        dice=dice,
        predicted_ml=math.nan,
        hd95_mm=None,
        asd_mm=None,
        steps=0,
        train_seconds=0.0,
        cell=name,
        factors={},
    )


def _match(path: Path, scores: _Scores, scans: Sequence[ResultRow]) -> dict[ResultRow, _Place]:
    """The place of each of the study's scans and structures that the file has."""
    ours: dict[str, set[str]] = {}
    for row in scans:
        ours.setdefault(row.data_set, set()).add(row.structure)
    named, sets = {p.structure for p in scores}, {p.data_set for p in scores}
    used: dict[_Place, str] = {}
    found = {}
    for row in scans:
        structure = _called(row.structure, ours[row.data_set], named)
        # A set that the study has is that one; of others the scan's name alone tells.
        where = [row.data_set] if row.data_set in sets else sorted(sets - ours.keys())
        places = [p for d in where if (p := _Place(d, structure, row.subject)) in scores]
        if not places:
            continue
        if len(places) > 1:
            raise InputError(
                f"{path} has the scan {row.subject} in the test sets '{places[0].data_set}' and "
                f"'{places[1].data_set}', and the study has neither: keep the rows that belong to {row.data_set}."
            )
        (place,) = places
        if used.setdefault(place, row.data_set) != row.data_set:
            raise InputError(
                f"{path} does not say whether its scan {row.subject} is that of {used[place]} or of {row.data_set}: "
                "add a column 'test_set' with these names."
            )
        found[row] = place
    return found


def _called(structure: str, ours: Collection[str], named: Collection[str]) -> str:
    """What the file calls a structure: where both have but one, it need not have a name."""
    if structure in named or len(named) > 1 or len(ours) > 1:
        return structure
    (only,) = named
    return only if {only, structure} & UNNAMED else structure


def _nothing(path: Path, scores: _Scores, scans: Sequence[ResultRow]) -> str:
    def some(names: Iterable[str]) -> str:
        every = sorted(set(names))
        return ", ".join(every[:3]) + (", ..." if len(every) > 3 else "")

    common = {p.subject for p in scores} & {r.subject for r in scans}
    if common and not {p.structure for p in scores} & {r.structure for r in scans}:
        return (
            f"{path} has scores of {some(p.structure for p in scores)}, and the study segments "
            f"{some(r.structure for r in scans)}: name the structures in its column 'structure' as the study does."
        )
    return (
        f"{path} has no score of a scan that the study tested (its scans are {some(p.subject for p in scores)}; the "
        f"study's are {some(f'{r.subject} of {r.data_set}' for r in scans)}): name them as the study's results.csv "
        "does."
    )


def _read(path: Path, structures: Sequence[str]) -> _Scores:
    """The file's scores. Raises InputError: it cannot be read, or a line is not possible."""
    try:
        lines = list(_cases(path, structures) if path.suffix.lower() == ".json" else _rows(path, structures))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the FILE of `compare`.") from None
    except (OSError, ValueError, csv.Error) as e:  # a broken encoding and broken JSON are ValueErrors
        raise InputError(f"{path} cannot be read ({e}): give a CSV table, or nnU-Net's summary.json.") from None
    out: _Scores = {}
    seen: dict[_Place, TableLine] = {}
    for place, line, columns in lines:
        if place in seen:
            what = " ".join(x for x in (place.data_set, place.structure) if x)
            raise line.fault(f"{line.kind} {seen[place].number} is of scan {place.subject}{what and f' ({what})'}, too")
        seen[place] = line
        out[place] = line.agreement(*columns, ROUNDED)
    if not out:
        raise InputError(f"{path} has no scores: {_WRITE}.")
    return out


_Line = tuple[_Place, TableLine, tuple[str, str]]
"""With the names of the columns of IoU and Dice."""


def _rows(path: Path, structures: Sequence[str]) -> Iterator[_Line]:
    with path.open(encoding="utf-8-sig", newline="") as f:
        reader = csv.DictReader(f)
        header = [c.strip().lower() for c in reader.fieldnames or ()]
        several = len(structures) > 1
        wanted = ["subject", *(["structure"] if several else []), *([] if "iou" in header else ["dice"])]
        if missing := [c for c in wanted if c not in header]:
            or_iou = " (or 'iou')" if missing[0] == "dice" else ""
            of = f", and the study is of {', '.join(structures)}" if missing[0] == "structure" else ""
            raise InputError(
                f"{path} lacks the column '{missing[0]}'{or_iou}{of}; it has {', '.join(header) or 'no columns'}: "
                f"{_WRITE}, separated by commas."
            )
        if twice := [c for c in READ if header.count(c) > 1]:
            raise InputError(f"{path} has the column '{twice[0]}' twice: keep one.")
        reader.fieldnames = header
        for cells in reader:
            line = TableLine(path, reader.line_num, cells, _WRITE)
            if None in cells or None in cells.values():
                raise line.fault("the row has another length than the header")
            structure = line.text("structure") if several else cells.get("structure") or ""
            data_set = (cells.get("test_set") or "").removesuffix(f"_{structure}" if structure else "")
            yield _Place(data_set, structure, line.text("subject")), line, ("iou", "dice")


def _cases(path: Path, structures: Sequence[str]) -> Iterator[_Line]:
    """Of nnU-Net's summary.json; of two empty masks, of which it has no number, IoU = Dice = 1 as everywhere here."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    cases = plain.get("metric_per_case") if isinstance(plain, dict) else None
    if not isinstance(cases, list):
        raise InputError(
            f"{path} is no summary.json of nnU-Net v2, as it lacks a list 'metric_per_case': give that file, or a CSV "
            "table (of a run of ours its subjects.csv)."
        )
    for number, case in enumerate(cases, 1):
        here = TableLine(path, number, {}, "let nnUNetv2_evaluate_folder write the file again", "case")
        metrics = case.get("metrics") if isinstance(case, dict) else None
        file = case.get("prediction_file") or case.get("reference_file") if isinstance(case, dict) else None
        if not isinstance(metrics, dict) or not isinstance(file, str):
            raise here.fault("it lacks 'metrics' or 'prediction_file'")
        name = PureWindowsPath(file).name  # which takes both kinds of slashes
        ending = extension_of(Path(name)) or Path(name).suffix
        subject = plain_name(name.removesuffix(name[len(name) - len(ending) :]))
        for label, values in metrics.items():
            yield _label(here, label, values, subject, structures)


def _label(here: TableLine, label: str, values: Any, subject: str, structures: Sequence[str]) -> _Line:
    only = re.fullmatch(r"\(?(\d+),?\)?", label)
    k = int(only[1]) if only else 0
    if not 1 <= k <= len(structures):
        raise dataclasses.replace(here, remedy="write a CSV table with the column 'structure' from it").fault(
            f"its label '{label}' is none of the study's {len(structures)} structures, counted from 1"
        )
    if not isinstance(values, dict) or not {"Dice", "IoU"} & values.keys():
        raise here.fault(f"label {label} has neither 'Dice' nor 'IoU'")
    if values.get("n_ref") == values.get("n_pred") == 0:
        values = {"IoU": 1, "Dice": 1}
    cells = {k: "" if v is None else str(v) for k, v in values.items()}
    structure = structures[k - 1] if len(structures) > 1 else ""
    return _Place("", structure, subject), dataclasses.replace(here, cells=cells), ("IoU", "Dice")
