"""Section: what fine-tuned models kept of their pre-task (Wang & Tang 2020, section 4.2)."""

from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.stats.compare_stats import spread_caption, values_text
from tlseg_jax.report.stats.forgotten import Forgotten, forgotten_by_method
from tlseg_jax.report.stats.method_tests import compare_kept
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.study_tables import tests_table
from tlseg_jax.report.words.difference import difference, forgotten_words
from tlseg_jax.report.words.study_words import persons_words
from tlseg_jax.studies.results_table import Results

TITLE = "Does freezing keep what was learnt?"


def forgetting(results: Results, study: StudyInfo) -> Section | None:
    """Dice on the pre-task's test set before and after the transfer, and between the methods after it."""
    found = forgotten_by_method(results, study)
    if not found:
        return Section(TITLE, ("Not measured: no fine-tuned model was scored on its pre-task's test set.",))
    tests = compare_kept(results, study)
    lines = (*map(forgotten_words, found), *map(difference, tests))
    tables = [_means(found), _persons(found)]
    if tests:
        tables.append(tests_table("forgetting_tests", tests, "Every two methods of one pre-task"))
    return Section(TITLE, lines, tables=tuple(tables))


def _means(found: tuple[Forgotten, ...]) -> ReportTable:
    columns = (
        "test set",
        "method",
        "n",
        "seeds",
        "persons",
        "before",
        "after",
        "change",
        "low",
        "high",
        "each",
        "kept",
        "Wilcoxon p",
        "note",
    )
    rows = tuple(
        (
            f.test_set,
            f.method,
            f.n,
            f.seeds,
            f.change.n,
            *(
                None if x is None else round(x, 4)
                for x in (f.before.mean, f.after.mean, f.change.mean_difference, f.change.low, f.change.high)
            ),
            values_text(f.change) or None,
            None if f.kept is None else round(f.kept, 4),
            f.change.wilcoxon_p,
            f.change.note or None,
        )
        for f in found
    )
    caption = (
        "Dice on the pre-task's test set before and after the transfer, means over "
        f"{persons_words(f.change.n for f in found)}; the change with its "
        f"{spread_caption(f.change.n for f in found)} and Wilcoxon's p, not adjusted."
    )
    return ReportTable("forgetting", caption, columns, rows)


def _persons(found: tuple[Forgotten, ...]) -> ReportTable:
    rows = tuple(
        (f.test_set, f.method, f.n, person, round(before, 4), round(after, 4))
        for f in found
        for person, (before, after) in f.persons.items()
    )
    return ReportTable(
        "forgetting_persons", "The same by person.", ("test set", "method", "n", "person", "before", "after"), rows
    )
