"""Section: single lesions found, missed and seen where there are none, on the target."""

from typing import Any

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.evaluate.detection import Detection
from tlseg_jax.report.cell_files import read_cells
from tlseg_jax.report.page.sections import ReportTable, Section, rounded
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.results_table import ResultRow, Results

TITLE = "Lesions found and missed"


def detection(results: Results, study: StudyInfo) -> Section | None:
    """Precision and recall of lesions by method and n; nothing where they were not measured."""

    def read(row: ResultRow) -> dict[str, Any]:
        entry = read_json(study.cell(row.cell) / "summary.json")["test_sets"].get(row.test_set, {})
        return entry.get("detection") or {}

    found, notes = read_cells(results.where(role="target"), study, read)
    rows = []
    for n, at in found.items():
        for method, own in at.items():
            measured = [d for d in own.values() if d]
            if measured:
                d = Detection(*(sum(int(d[k]) for d in measured) for k in ("found", "missed", "false")))
                shares = (rounded(d.precision), rounded(d.recall))
                rows.append((method, n, len(measured), d.found, d.missed, d.false, *shares))
    if not rows:
        return Section(TITLE, tuple(f"Not shown: {note}" for note in notes)) if notes else None
    columns = ("method", "n", "seeds", "found", "missed", "false", "precision", "recall")
    caption = (
        "Lesions are components of the label; one is found where a predicted component has an IoU of half or more with "
        "it. Precision is found / (found + false), recall found / (found + missed), pooled over scans and seeds."
    )
    return Section(TITLE, notes, tables=(ReportTable("detection", caption, columns, tuple(rows)),))
