"""The CSV layout: a list with the columns subject, image, label and, if wanted, mask, split, person, structures."""

import codecs
import csv
import io
import re
from collections import Counter
from pathlib import Path

from tlseg_jax.preprocess.layouts.found import Candidates, Exclusion, Found, as_spelled, assemble
from tlseg_jax.preprocess.reading.formats import plain_name
from tlseg_jax.runtime.errors import InputError

EXPECTED = "a CSV file with the columns subject, image, label (and optionally mask, split, person, structures)"

LISTS = (".csv", ".tsv")
"""Endings of a list, in lower case."""

_SEP = re.compile(r"\s*sep=([,;\t])\s*?(?:\r?\n|\r)", re.IGNORECASE)

_BETWEEN = re.compile(r"[+;|]")
"""Between the structures that a scan marks."""

ListRows = list[tuple[int, list[str]]]


def _text(raw: bytes) -> str:
    """A table's text: UTF-8, UTF-16 with its mark, or what a spreadsheet of the West writes without one (cp1252)."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252")
    if "\0" in text:
        raise ValueError("it holds NUL characters")
    return text


def _read(path: Path) -> tuple[list[str], ListRows]:
    """The column names, in lower case, and (line number, values) of every row that is not blank."""
    try:
        text = _text(path.read_bytes())
        said = _SEP.match(text)  # a line for Excel, before the header
        body = text[said.end() :] if said else text
        first = body.lstrip().split("\n", 1)[0]
        # Spreadsheets write semicolons where the comma is the decimal sign.
        delimiter = said.group(1) if said else max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
        before = text[: said.end()].count("\n") if said else 0
        rows = [(reader.line_num + before, [v.strip() for v in row]) for row in reader]
    except (OSError, ValueError, csv.Error) as e:
        raise InputError(f"The list {path} cannot be read as CSV ({e}): save it as CSV in UTF-8.") from None
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise InputError(f"The list {path} is empty: give {EXPECTED}.")
    return [c.lower() for c in rows[0][1]], rows[1:]


def lists_in(source: Path) -> list[Path]:
    """The CSV and TSV files of a folder whose header makes them a list of scans.

    Raises:
      InputError: one of them cannot be read, and might be or by its first bytes is a list.
    """
    lists = []
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in LISTS or path.is_dir():
            continue
        try:
            columns, _ = _read(path)
        except InputError:
            if _may_be_list(path):
                raise
            continue  # some other table
        if {"subject", "image"} <= set(columns):  # with no label, it is a list that lacks one
            lists.append(path)
    return lists


def lists_without(source: Path, column: str) -> bool:
    """Whether a source is a list, or a folder with lists, and none has this column."""
    lists = lists_in(source) if source.is_dir() else [source] if source.suffix.lower() in LISTS else []
    return bool(lists) and all(column not in _read(path)[0] for path in lists)


def _may_be_list(path: Path) -> bool:
    """Whether a file that cannot be read as CSV names subjects and images, or cannot be opened at all."""
    try:
        with path.open("rb") as f:
            start = f.read(4096).replace(b"\0", b"").lower()
    except OSError:
        return True
    return b"subject" in start and b"image" in start


def find_csv(source: Path, need_label: bool) -> Found:
    """The scans of a CSV list, or of the one list in a folder; paths are relative to the list.

    Raises:
      InputError: no list or several in the folder, an unreadable list, a missing or repeated column,
        or a split that is neither train nor test.
    """
    path = source
    if source.is_dir():
        lists = lists_in(source)
        if len(lists) != 1:
            names = ", ".join(p.name for p in lists) or "none"
            raise InputError(f"{source} must hold one list of scans and has {names}: give {EXPECTED}.")
        path = lists[0]
    columns, rows = _read(path)
    for name in ("subject", "image", *(("label",) if need_label else ())):
        if name not in columns:
            have = ", ".join(c for c in columns if c) or "no names"
            raise InputError(f"The list {path} has no column '{name}' (it has {have}): add it.")
    for name, count in Counter(columns).items():
        if name and count > 1:
            raise InputError(f"The list {path} has {count} columns named '{name}': keep one.")
    if not rows:
        raise InputError(f"The list {path} has no rows under its header: add one for each scan.")
    records = [(line, dict(zip(columns, row + [""] * len(columns), strict=False))) for line, row in rows]
    return _collect(path, records, need_label)


def _collect(path: Path, records: list[tuple[int, dict[str, str]]], need_label: bool) -> Found:
    candidates: dict[str, Candidates] = {}
    exclusions: list[Exclusion] = []
    lines: dict[str, list[int]] = {}
    for line, record in records:
        record["subject"] = plain_name(record["subject"])
        lines.setdefault(record["subject"], []).append(line)
    used = Counter(as_spelled(path.parent / r["image"]).resolve() for _, r in records if r["image"])
    for line, record in records:
        subject = record["subject"]
        where = f"{path} line {line}"
        split = record.get("split", "").lower()
        if split not in ("", "train", "test"):
            raise InputError(f"{where} has the split '{record['split']}': write train, test or nothing.")
        files = {k: as_spelled(path.parent / v) for k in ("image", "label", "mask") if (v := record.get(k, ""))}
        if not need_label:
            files.pop("label", None)
        reason = _row_fault(where, subject, files, need_label)
        if not reason and len(lines[subject]) > 1:
            reason = (
                f"{path} lists {subject} on lines {', '.join(map(str, lines[subject]))}: give each scan a "
                "name of its own, and repeat scans the same person."
            )
        if not reason and used[files["image"].resolve()] > 1:
            reason = f"{where}: {files['image']} is listed for several subjects: keep one."
        if reason:
            exclusions.append(Exclusion(subject or f"line {line}", reason))
            continue
        candidates[subject] = Candidates(
            images=[files["image"]],
            labels=[files["label"]] if "label" in files else [],
            masks=[files["mask"]] if "mask" in files else [],
            split=split,
            person=record.get("person", ""),
            marked=tuple(s.strip() for s in _BETWEEN.split(record.get("structures", "")) if s.strip()),
        )
    return assemble("csv", candidates, need_label, tuple(exclusions))


def _row_fault(where: str, subject: str, files: dict[str, Path], need_label: bool) -> str:
    if not subject:
        return f"{where} has no subject: give the scan a name."
    for kind in ("image", "label") if need_label else ("image",):
        if kind not in files:
            return f"{where} ({subject}) has no {kind}: fill it in, or remove the row."
    for kind, file in files.items():
        if not file.exists():
            return f"{where} ({subject}): the {kind} {file} does not exist: correct the path."
    return ""
