"""Section: what was done: methods, settings and scans that were left out."""

from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.study_info import StudyInfo
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
