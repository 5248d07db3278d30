"""The page of a folder of predictions: what to distrust, the worst first, with pictures and scans to scroll through."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.evaluate.label_map import doubt_path
from tlseg_jax.evaluate.predict_once import Outcome
from tlseg_jax.evaluate.trust.calibration import LEVEL, Calibration
from tlseg_jax.evaluate.trust.verdict import Verdict, first_of
from tlseg_jax.figures.doubt import DoubtCase, draw_doubt
from tlseg_jax.preprocess.reading.header import read_header
from tlseg_jax.preprocess.reading.planes import scaled, stream_planes
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import Scan, ScanFiles
from tlseg_jax.report.page.page import SYNTHETIC, write_page
from tlseg_jax.report.page.sections import ReportFigure, ReportTable, Section, TableCell
from tlseg_jax.report.page.viewer import Layer, Viewer, ViewerCase, make_viewer
from tlseg_jax.report.page.viewer_box import HOW

SHOWN = 6
"""Scans with a picture and a viewer: each takes up to a megabyte."""

DOUBTED = 0.2
"""Share of the passes that say otherwise from which on a voxel is shown as doubted in the viewer."""

MEANING = ("marked by nearly all passes", "marked, but doubted", "not marked, but doubted")

SWITCHES = (("label", (1, 2)), ("doubt", (2, 3)))
"""What is switched on and off, with the values of `MEANING` that it has."""


def worst_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that have a verdict: to review first, then the unlike ones; among each by the lowest Dice, then name."""
    return sorted(
        (o for o in outcomes if o.verdict is not None),
        key=lambda o: (not _of(o).review, not _of(o).unlike, _of(o).lowest, o.subject),
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    """ "review these 7 of 120: a, b, ...", as one line."""
    order = worst_first(outcomes)
    review = [o.subject for o in order if _of(o).review]
    unlike = [o.subject for o in order if _of(o).unlike]
    said = f"review these {len(review)} of {len(order)}: {first_of(review, 10)}" if review else ""
    if unlike:
        said += f"{'; ' if said else ''}unlike the known scans {len(unlike)} of {len(order)}: {first_of(unlike, 10)}"
    return said or f"none of the {len(order)} scans stands out"


def write_trust_page(
    path: Path,
    outcomes: Sequence[Outcome],
    scans: Mapping[str, ScanFiles],
    calibration: Calibration | None,
    facts: Mapping[str, str],
    synthetic: bool = False,
) -> Path:
    """Write the page.

    Args:
      path: the HTML file, which is returned.
      outcomes: of all scans of the folder.
      scans: subject -> its files.
      calibration: that the verdicts are by; None: they tell agreement alone.
      facts: name -> value, listed at the end.
      synthetic: whether the model has only seen drawn scans.
    """
    order = worst_first(outcomes)
    shown = order[:SHOWN]
    with tempfile.TemporaryDirectory() as folder:
        cases, viewers = [], []
        for o in shown:
            scan, label, doubt = _read(o, scans[o.subject])
            cases.append(DoubtCase(_title(o), scan.image, label, doubt, scan.affine))
            viewers.append(_viewer(o, scan, label, doubt))
        figures = []
        if cases:
            draw_doubt(cases, Path(folder) / "doubt.png")
            caption = f"The {len(cases)} scans that are trusted least, through the place that the passes doubt most."
            figures.append(ReportFigure(Path(folder) / "doubt.png", caption, "scans with the places of doubt"))
        sections = [
            Section(_headline(order), _paragraphs(calibration), tuple(figures), (_table(order),)),
            Section("Look at the scans", (HOW,) if viewers else (), viewers=tuple(viewers)),
            Section("Every structure", tables=(_structures(order),)),
        ]
        failed = [o for o in outcomes if o.problem]
        if failed:
            sections.insert(1, Section("Not segmented", tuple(f"**{o.subject}**: {o.problem}" for o in failed)))
        warnings = [SYNTHETIC] if synthetic else []
        return write_page(path, "What to distrust", sections, warnings=warnings, facts=facts, tables=False)


def _of(outcome: Outcome) -> Verdict:
    assert outcome.verdict is not None
    return outcome.verdict


def _headline(order: Sequence[Outcome]) -> str:
    review = sum(_of(o).review for o in order)
    return f"Review these {review} of {len(order)}" if review else f"None of the {len(order)} scans stands out"


def _paragraphs(calibration: Calibration | None) -> tuple[str, ...]:
    if calibration is None:
        return (
            "**There is no calibration of this model**: the agreement of the passes (mean Dice of all pairs) is told, "
            "which is no Dice to expect, and only scans in which a structure was not found are marked for review. "
            "Calibrate it on scans with label maps: tlseg evaluate --trust.",
            "The volumes' ends are the least and the most of the passes.",
        )
    m = calibration.measured
    told = [
        "The predicted Dice is what held-out scans with the same agreement of the passes have had. A structure is "
        f"flagged where it is far below what is usual for it. Volumes: intervals of {LEVEL:.0%}. A scan is unlike "
        "where its grey values, its registration or a volume is four standard deviations and more from the known "
        "scans': its predicted Dice and intervals then go beyond what they were learnt on.",
        f"Calibrated on {calibration.scans} scans of {calibration.persons} persons: what is unlike them all, in a way "
        "that the passes do not feel, is not seen.",
    ]
    if m.get("error"):
        told.append(
            "On those scans, each judged by the others, the predicted Dice was off by "
            f"{m['error']['predicted']:.3f} on average."
        )
    return tuple(told)


def _title(o: Outcome) -> str:
    v = _of(o)
    what = "lowest predicted Dice" if v.calibrated else "lowest agreement"
    return f"{o.subject}: {what} {v.lowest:.2f}{', review' if v.review else ', unlike' if v.unlike else ''}"


def _table(order: Sequence[Outcome]) -> ReportTable:
    calibrated = any(_of(o).calibrated for o in order)
    rows: list[tuple[TableCell, ...]] = []
    for place, o in enumerate(order, 1):
        v = _of(o)
        worst = min(v.structures, key=lambda s: v.structures[s].expected)
        unlike, why, review = first_of(v.unlike, 4), "; ".join(v.reasons), "yes" if v.review else "no"
        rows.append((place, o.subject, review, v.lowest, worst, why, unlike, o.warning))
    return ReportTable(
        "scans",
        f"All {len(order)} scans, the least trusted first.",
        (
            "place",
            "scan",
            "review",
            "lowest predicted Dice" if calibrated else "lowest agreement",
            "of",
            "why",
            "unlike in (standard deviations)",
            "warnings",
        ),
        tuple(rows),
    )


def _structures(order: Sequence[Outcome]) -> ReportTable:
    rows: list[tuple[TableCell, ...]] = []
    for o in order:
        for name, s in _of(o).structures.items():
            ml = float(o.volumes_ml[name])
            flag = "yes" if s.flagged else "no"
            rows.append((o.subject, name, flag, s.predicted, s.agreement, ml, s.low_ml, s.high_ml))
    return ReportTable(
        "structures",
        "Every structure of every scan.",
        ("scan", "structure", "flagged", "predicted Dice", "agreement", "ml", "from", "to"),
        tuple(rows),
    )


def _read(o: Outcome, files: ScanFiles) -> tuple[Scan, NDArray[np.int64], NDArray[np.float32]]:
    """The scan, its label map and its doubt, in the scan's own axes."""
    assert o.output is not None
    label, percent = _values(o.output), _values(doubt_path(o.output))
    return read_scan(files), np.asarray(np.rint(label), np.int64), percent / np.float32(100)


def _values(path: Path) -> NDArray[np.float32]:
    """A label map's values; unlike a scan it may be empty."""
    header = read_header(path)
    return np.stack([scaled(header, p) for p in stream_planes(path, header)], -1).astype(np.float32)


def _viewer(o: Outcome, scan: Scan, label: NDArray[np.int64], doubt: NDArray[np.float32]) -> Viewer:
    marked, doubted = label > 0, doubt >= DOUBTED
    v = _of(o)
    unlike = [f"unlike the known scans: {', '.join(v.unlike[:4])} (standard deviations)"] if v.unlike else []
    why = "; ".join([*v.reasons, *unlike]) or "Nothing stands out"
    classes = np.select([marked & ~doubted, marked & doubted, doubted], [1, 2, 3], 0).astype(np.uint8)
    image, layers = np.asarray(scan.image, np.float32), (Layer("all", f"{why}.", classes),)
    note = "the predicted Dice is of the scan's own voxels"
    case = ViewerCase(_title(o), o.subject, image, scan.affine, layers, meaning=MEANING, switches=SWITCHES, note=note)
    return make_viewer(case)
