"""Section: where the models are worst."""

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import count_failures, hardest_persons, worst_cases
from tlseg_jax.report.view import View
from tlseg_jax.report.words import study_words as words
from tlseg_jax.studies.results_table import Results


def worst(results: Results, study: StudyInfo) -> Section | None:
    """Single scans, persons that are hard for all methods, and structures that were missed."""
    v = View(results, study)
    if not v.sets:
        return None
    failures = count_failures(results, study)
    lines = (*words.failure_words(failures), *words.hard_words(hardest_persons(results)))
    shown = [tables.worst_table(worst_cases(results))]
    if any(f.failures for f in failures):
        shown.append(tables.failures_table(failures))
    return Section("Worst cases and failures", lines, tables=tuple(shown))
