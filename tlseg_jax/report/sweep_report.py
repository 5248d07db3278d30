"""A sweep's report: the sections that its study asks for, on one page.

FOLDER/report.html
FOLDER/figures/*.png, *.svg
FOLDER/tables/*.csv
FOLDER/figures/STRUCTURE/, FOLDER/tables/STRUCTURE/    of a study of several structures; "all" has the means over them
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tlseg_jax.report.page.page import SYNTHETIC, write_page
from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.participants import read_participants
from tlseg_jax.report.registry import make_sections
from tlseg_jax.report.sections.cases import scans
from tlseg_jax.report.stats.sweep_stats import grouped
from tlseg_jax.report.study_info import StudyInfo, read_study
from tlseg_jax.report.words.study_words import counted
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.written import publishing
from tlseg_jax.studies.other_results import with_others
from tlseg_jax.studies.results_table import Results, Role, read_results

PAGE = "report.html"

BESIDE = {"answer", "target", "unseen", "learning"}
"""Sections that show others beside the study."""

VIEWERS = 6
"""Scans to scroll through, if not told otherwise: the worst, median and best of the target and of unseen data."""


def write_report(
    sweep_folder: Path,
    report_folder: Path,
    viewers: int = VIEWERS,
    compare: Mapping[str, Path] | None = None,
    participants: Path | None = None,
) -> Path:
    """Write the report of a sweep, finished or not.

    Args:
      sweep_folder: with study.json and results.csv; cells and prepared data sets may be gone.
      report_folder: made if it is missing; figures and tables of an earlier report there are replaced, or go.
      viewers: scans to scroll through, at most.
      compare: name -> scores of others, to be shown beside the study's; see `studies.other_results`.
      participants: a participants.tsv of the persons tested, whose columns the section `worst` has groups of.

    Returns:
      The page, which is written last.

    Raises:
      InputError: study.json or results.csv is missing or damaged, or asks for a section that does not exist; scores of
        others are no scores, or of no scan of the study; `participants` is no such table; or the folder cannot be
        written or holds files under the report's names that no earlier call wrote.
    """
    study = read_study(sweep_folder / "study.json")
    results = with_others(read_results(sweep_folder / "results.csv"), compare or {})
    if compare and not BESIDE & set(study.sections or BESIDE):
        raise InputError(
            f"The study {study.name} has no section where others could stand beside it: add one of "
            f"{', '.join(sorted(BESIDE))} to its 'sections', or leave `compare` out."
        )
    if participants is not None:
        tested = [r.person for r in results if r.role != "pretask"]
        study = dataclasses.replace(study, people=read_participants(participants, tested))
    with lock_folder(report_folder, "output"), publishing(report_folder, PAGE) as folder:
        study = dataclasses.replace(study, figures=folder / "figures")
        study.figures.mkdir(exist_ok=True)
        shown, notes = scans(results, study, viewers)
        sections = [*make_sections(results, study, shown), *_unfinished(study)]
        if results.others:
            sections.append(_others(results))
        write_page(
            folder / PAGE,
            f"Study {study.name}",
            sections,
            warnings=_warnings(results, study),
            facts=_facts(results, study),
        )
    for note in notes:
        log.info(note)
    return report_folder / PAGE


def _synthetic(results: Results, study: StudyInfo) -> bool:
    return study.synthetic or results.synthetic


def _facts(results: Results, study: StudyInfo) -> dict[str, str]:
    several = len(results.structures) > 1
    done = len({r.cell for r in results if r.role != "pretask"})
    missing, failed = len(study.missing), len(study.failed)
    runs = f"{done} done" + (f", {missing} missing" if missing else "") + (f", {failed} failed" if failed else "")

    def scored(role: Role) -> str:
        sets = grouped(results.where(role=role), lambda r: r.data_set if several else r.test_set)
        return ", ".join(f"{name} ({counted(len({r.person for r in rows}), 'person')})" for name, rows in sets.items())

    return {
        "Target": study.task,
        **({"Structures": str(len(results.structures))} if several else {}),
        "Tested on": scored("target") or "nothing yet",
        "Unseen data": scored("unseen") or "none",
        "Scans": "synthetic" if _synthetic(results, study) else "real",
        **({"Pre-training data": study.drawn} if study.drawn else {}),
        "Methods": str(len(study.methods)),
        "Labelled scans (n)": ", ".join(map(str, study.n)),
        "Seeds": str(study.seeds),
        "Folds": f"{study.folds}, persons are tested when held out" if study.folds else "none, one fixed test set",
        "Runs": runs,
        "Time so far": _duration(study.seconds),
    }


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _others(results: Results) -> Section:
    """What stands beside the study's scores, and from where."""
    line = (
        "They have no number of labelled scans of this study. A person counts where all of the person's scans are "
        "there and, for a mean over structures, all structures; who is one person is as the study says."
    )
    rows = tuple((o.name, str(o.path), o.scores, o.scores - o.unused, o.unused) for o in results.others)
    columns = ("name", "file", "scores", "of scans tested here", "of others, left out")
    table = ReportTable("others", f"Scores that stand beside the study's, {len(rows)}.", columns, rows)
    return Section("Others that the study is compared with", (line,), tables=(table,))


def _warnings(results: Results, study: StudyInfo) -> list[str]:
    """What the page says above all else: that its data were drawn, and that it lacks runs."""
    drawn = [f"Drawn pre-training data: {study.drawn}."] if study.drawn else []
    missing, failed = counted(len(study.missing), "run"), counted(len(study.failed), "run")
    said = [SYNTHETIC] if _synthetic(results, study) else drawn
    said += [f"This study is not finished: it lacks {missing}, so every number may change."] if study.missing else []
    said += [f"{failed} failed; the scores are without them."] if study.failed else []
    return said


def _unfinished(study: StudyInfo) -> tuple[Section, ...]:
    if not (study.missing or study.failed):
        return ()
    lines = []
    tables = []
    if study.missing:
        lines.append("Run the sweep again to go on from here, then the report.")
        rows = tuple((c,) for c in study.missing)
        tables.append(ReportTable("missing", f"Runs that are missing, {len(rows)}.", ("run",), rows))
    if study.failed:
        lines.append("The scores are without the runs that failed.")
        caption = f"Runs that failed, {len(study.failed)}."
        tables.append(ReportTable("failed", caption, ("run", "reason"), study.failed))
    return (Section("What is missing", tuple(lines), tables=tuple(tables)),)
