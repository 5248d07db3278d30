"""A sweep's report: everything with scores from results.csv alone, then what the cells and the scans can show.

    FOLDER/report.html
    FOLDER/figures/*.png, *.svg
    FOLDER/tables/*.csv
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from tlseg_jax.evaluate.run_tables import Curve
from tlseg_jax.figures.method_style import MANY, style_methods
from tlseg_jax.report.factor_sections import factor_sections
from tlseg_jax.report.figures.case_figures import grid_section, make_viewers
from tlseg_jax.report.figures.loss_curves import draw_loss_curves, read_losses
from tlseg_jax.report.page.page import write_page
from tlseg_jax.report.page.sections import ReportFigure, ReportTable, Section
from tlseg_jax.report.slice_example_section import example_section
from tlseg_jax.report.slice_sections import slice_sections
from tlseg_jax.report.stats.sweep_stats import method_order
from tlseg_jax.report.study_info import StudyInfo, read_study
from tlseg_jax.report.study_sections import score_sections
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.written import publishing
from tlseg_jax.studies.assess import mark_of
from tlseg_jax.studies.results_table import Results, read_results

PAGE = "report.html"

VIEWERS = 6
"""Scans to scroll through, if not told otherwise: the worst, median and best of the target and of unseen data."""


def write_report(
    sweep_folder: Path, report_folder: Path, say: Callable[[str], None] = print, viewers: int = VIEWERS
) -> Path:
    """Write the report of a sweep, finished or not.

    Args:
      sweep_folder: with study.json and results.csv; cells and prepared data sets may be gone.
      report_folder: made if it is missing; figures and tables of an earlier report there are replaced, or go.
      say: prints a line.
      viewers: scans to scroll through, at most.

    Returns:
      The page, which is written last.

    Raises:
      InputError: study.json or results.csv is missing or damaged, or the folder cannot be written or holds files
        under the report's names that no earlier call wrote.
    """
    study = read_study(sweep_folder / "study.json")
    results = read_results(sweep_folder / "results.csv")
    with lock_folder(report_folder, "output"), publishing(report_folder, PAGE) as folder:
        figures = folder / "figures"
        figures.mkdir(exist_ok=True)
        sections = [
            *_unfinished(study),
            *score_sections(results, folder, study),
            *(factor_sections(results, folder, study) if study.has_factors else ()),
            grid_section(results, study, sweep_folder, figures),
            *_curves(results, study, sweep_folder, folder),
            *_material(study),
        ]
        shown, notes = make_viewers(results, study, sweep_folder, viewers)
        if notes:
            sections.append(Section("Scans that cannot be shown", notes))
        write_page(
            folder / PAGE, f"Study {study.name}", sections, synthetic=_synthetic(results, study),
            facts=_facts(results, study), viewers=shown,
        )  # fmt: skip
    for note in notes:
        say(note)
    return report_folder / PAGE


def _synthetic(results: Results, study: StudyInfo) -> bool:
    return study.synthetic or results.synthetic


def _done(study: StudyInfo, results: Results) -> int:
    return len({r.cell for r in results if r.role != "pretask"})


def _facts(results: Results, study: StudyInfo) -> dict[str, str]:
    persons = {t: len({r.person for r in results.where(test_set=t)}) for t in results.test_sets}
    target = dict.fromkeys(r.test_set for r in results.where(role="target"))
    unseen = dict.fromkeys(r.test_set for r in results.where(role="unseen"))
    done, missing, failed = _done(study, results), len(study.missing), len(study.failed)
    runs = f"{done} done" + (f", {missing} missing" if missing else "") + (f", {failed} failed" if failed else "")
    return {
        "Target": study.task,
        "Tested on": ", ".join(f"{t} ({_count(persons[t], 'person')})" for t in target) or "nothing yet",
        "Unseen data": ", ".join(f"{t} ({_count(persons[t], 'person')})" for t in unseen) or "none",
        "Scans": "synthetic" if _synthetic(results, study) else "real",
        "Methods": str(len(study.methods)),
        "Labelled scans (n)": ", ".join(map(str, study.n)),
        "Seeds": str(study.seeds),
        "Folds": f"{study.folds}, persons are tested when held out" if study.folds else "none, one fixed test set",
        "Runs": runs,
        "Time so far": _duration(study.seconds),
    }


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _unfinished(study: StudyInfo) -> tuple[Section, ...]:
    if not (study.missing or study.failed):
        return ()
    lines = []
    tables = []
    if study.missing:
        lines.append(
            f"**This study is not finished:** it lacks {_count(len(study.missing), 'run')}, so every number below may "
            "change. Run the sweep again to go on from here, then the report."
        )
        rows = tuple((c,) for c in study.missing)
        tables.append(ReportTable("missing", f"Runs that are missing, {len(rows)}.", ("run",), rows))
    if study.failed:
        lines.append(f"{_count(len(study.failed), 'run')} failed; the scores are without them.")
        failed = tuple((f.cell, f.reason) for f in study.failed)
        tables.append(ReportTable("failed", f"Runs that failed, {len(failed)}.", ("run", "reason"), failed))
    return (Section("What is missing", tuple(lines), tables=tuple(tables)),)


def _curves(results: Results, study: StudyInfo, sweep: Path, folder: Path) -> Sequence[Section]:
    if study.kind == "slices":
        examples = example_section(results, study, sweep, folder)
        return (*([examples] if examples else []), *slice_sections(results, study, sweep, folder))
    title = "Training losses"
    order = method_order(results, study)
    if len(order) > MANY:
        return (Section(title, (f"Not shown: {len(order)} methods are more than one figure can tell apart.",)),)
    numbers = results.numbers
    if not numbers:
        return ()
    n = numbers[-1]
    curves: dict[str, list[Curve]] = {}
    faults = []
    for method in order:
        cells = dict.fromkeys(r.cell for r in results.where(method=method, n=n))
        for cell in cells:
            try:
                losses = read_losses(sweep / "cells" / cell)
            except InputError as e:
                faults.append(str(e))
            else:
                curves.setdefault(method, []).append(losses)
    notes = [f"{_count(len(faults), 'run')} cannot be read and are left out; the first: {faults[0]}"] if faults else []
    if not curves:
        return (Section(title, (f"Not shown: {faults[0]}",)),)
    png = folder / "figures" / "losses.png"
    draw_loss_curves(
        curves, style_methods(order), png, heading=f"{study.task}, n = {n}", mark=mark_of(_synthetic(results, study))
    )
    caption = (
        f"Running median of the training loss with {_count(n, 'labelled scan')}; line: mean over the runs, band: from "
        "the lowest to the highest."
    )
    return (Section(title, tuple(notes), (ReportFigure(png, caption, f"Training losses by method, n = {n}"),)),)


def _material(study: StudyInfo) -> tuple[Section, ...]:
    """Settings, methods and what was left out of the data."""
    left_out = tuple((name, e.subject, e.reason) for name, own in study.exclusions.items() for e in own)
    methods = tuple(
        (m.name, m.pretask, m.freeze or None, m.remedy or None, m.baseline or None) for m in study.methods
    )
    tables = [
        ReportTable(
            "methods", f"The {len(methods)} methods.",
            ("method", "pre-trained on", "frozen", "remedy", "compared with"), methods,
        )
    ]  # fmt: skip
    if study.settings:
        tables.append(
            ReportTable("settings", "What all runs share.", ("setting", "value"), tuple(study.settings.items()))
        )
    if left_out:
        tables.append(
            ReportTable(
                "exclusions", f"Scans that were left out of the data, {len(left_out)}.", ("data set", "scan", "reason"),
                left_out,
            )
        )  # fmt: skip
    line = f"{_count(len(left_out), 'scan')} left out of the data." if left_out else "No scan was left out of the data."
    return (Section("Methods, settings and exclusions", (line,), tables=tuple(tables)),)
