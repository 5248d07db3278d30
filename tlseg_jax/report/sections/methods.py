"""Sections: what was done (methods, settings, scans left out), and the pre-trained models on their own test sets."""

from tlseg_jax.figures.style import MANY
from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.stats.sweep_stats import pretask_scores
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.words import study_words as words
from tlseg_jax.report.words.study_words import counted
from tlseg_jax.studies.results_table import Results


def methods(results: Results, study: StudyInfo) -> Section:
    """Methods, settings and what was left out of the data."""
    left_out = tuple((name, *scan) for name, own in study.exclusions.items() for scan in own)
    rows = tuple((m.name, m.pretask, m.freeze or None, m.remedy or None, m.baseline or None) for m in study.methods)
    columns = ("method", "pre-trained on", "frozen", "remedy", "compared with")
    tables = [ReportTable("methods", f"The {len(rows)} methods.", columns, rows)]
    if study.settings:
        tables.append(
            ReportTable("settings", "What all runs share.", ("setting", "value"), tuple(study.settings.items()))
        )
    if left_out:
        caption = f"Scans that were left out of the data, {len(left_out)}."
        tables.append(ReportTable("exclusions", caption, ("data set", "scan", "reason"), left_out))
    line = (
        f"{counted(len(left_out), 'scan')} left out of the data." if left_out else "No scan was left out of the data."
    )
    return Section("Methods, settings and exclusions", (line,), tables=tuple(tables))


def pretasks(results: Results, study: StudyInfo) -> Section | None:
    """IoU of each pre-training, mean over persons (Table 2 of Weatheritt et al. 2020)."""
    scores = pretask_scores(results)
    title = "Pre-trained models"
    if not scores:
        return Section(title, ("No pre-trained model was scored on a test set of its own.",))
    lines = [f"{s.method}: mean IoU {words.score_words(s)}." for s in scores] if len(scores) <= MANY else []
    if study.drawn:
        lines.append(f"What they were trained and are tested on here: {study.drawn}.")
    return Section(title, tuple(lines), tables=(tables.table_2(scores),))
