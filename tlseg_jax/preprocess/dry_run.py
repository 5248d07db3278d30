"""What `prepare --dry_run` shows: every subject of a source and what is wrong with it.

Headers alone are read, so it takes milliseconds a file. What only the voxels show (a truncated
gzip, NaN, an empty label) is found by `prepare` itself.
"""

import dataclasses
from pathlib import Path

import numpy as np

from tlseg_jax.datasets.structures import ALL, LabelValues
from tlseg_jax.preprocess.layouts.found import Found
from tlseg_jax.preprocess.reading.header import Header, places_of, read_header
from tlseg_jax.preprocess.reading.same_grid import read_others
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.preprocess.reading.scan_file import fault


@dataclasses.dataclass(frozen=True)
class Row:
    """One subject of the table.

    Attributes:
      split: "train", "test" or "" where the source leaves it open.
      shape: voxels on the file's axes; empty if the image's header cannot be used.
      spacing: voxel size in mm, likewise.
      orientation: where the axes point, such as "LAS", likewise.
      problem: one sentence, or "" if nothing is wrong.
      warning: sentences, or "".
    """

    subject: str
    person: str
    split: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    problem: str
    warning: str = ""


def check_source(found: Found, label_values: LabelValues = (), single_slice: bool = False) -> list[Row]:
    """A row for every scan and every exclusion of `found`, sorted by subject.

    Args:
      label_values: the values that will be asked for; here only whether each label map's type can
        hold them.
      single_slice: accept volumes of one slice, as data sets of slices do.
    """
    rows = [_check(files, label_values, single_slice) for files in found.scans]
    rows += [Row(e.subject, "", "", (), (), "", e.reason) for e in found.exclusions]
    return sorted(rows, key=lambda r: r.subject)


def _check(files: ScanFiles, label_values: LabelValues, single_slice: bool) -> Row:
    row = Row(files.subject, files.person, files.split, (), (), "", "")
    try:
        header = read_header(files.image, single_slice)
        row = dataclasses.replace(
            row, shape=header.shape, spacing=header.grid.spacing, orientation=header.axcodes, warning=header.warning
        )
        others, warnings = read_others(files, header, single_slice)
        if files.label is not None:
            _check_values_fit(files.label, others[files.label], label_values)
        return dataclasses.replace(row, warning=" ".join(w for w in warnings if w))
    except ExclusionError as e:
        return dataclasses.replace(row, problem=str(e))


def _check_values_fit(path: Path, header: Header, values: LabelValues) -> None:
    if values == ALL:
        return
    for value in values:
        places_of(path, header, value)
    dtype = np.dtype(header.dtype)
    if dtype.kind == "f" or header.scaled:
        return
    limits = np.iinfo(dtype)
    for value in values:
        if isinstance(value, int) and not limits.min <= value <= limits.max:
            what = f"is of type {dtype}, which cannot hold the label value {value}"
            raise fault(path, what, "check `label_values`")


def format_rows(rows: list[Row]) -> str:
    """The table as aligned text, a line a subject, and a last line with the counts."""
    table = [("subject", "person", "split", "voxels", "spacing (mm)", "axes", "problem")]
    for r in rows:
        shape = "x".join(map(str, r.shape)) or "-"
        spacing = "x".join(f"{s:.3g}" for s in r.spacing) or "-"
        said = r.problem or (f"warning: {r.warning}" if r.warning else "")
        cells = (r.subject, r.person or "-", r.split or "-", shape, spacing, r.orientation or "-", said)
        table.append(cells)
    widths = [max(len(line[i]) for line in table) for i in range(6)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(line[:6], widths, strict=True)), line[6]]).rstrip()
        for line in table
    ]
    bad = sum(bool(r.problem) for r in rows)
    lines.append(f"{len(rows)} subjects: {len(rows) - bad} look usable, {bad} would be excluded.")
    return "\n".join(lines)
