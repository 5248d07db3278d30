"""Section: what fine-tuned models kept of their pre-task (Wang & Tang 2020, section 4.2)."""

from tlseg_jax.report.page.sections import ReportTable, Section, rounded, table_of
from tlseg_jax.report.stats.compare_stats import spread_caption, values_text
from tlseg_jax.report.stats.method_tests import Forgotten, compare_kept, forgotten_by_method
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
    caption = (
        "Dice on the pre-task's test set before and after the transfer, means over "
        f"{persons_words(f.change.test.n for f in found)}; the change with its "
        f"{spread_caption(f.change.test.n for f in found)} and Wilcoxon's p, not adjusted."
    )
    return table_of(
        "forgetting",
        caption,
        found,
        {
            "test set": lambda f: f.change.test_set.name,
            "method": lambda f: f.change.second,
            "n": lambda f: f.change.n,
            "seeds": lambda f: f.seeds,
            "persons": lambda f: f.change.test.n,
            "before": lambda f: rounded(f.before),
            "after": lambda f: rounded(f.after),
            "change": lambda f: rounded(f.change.test.mean_difference),
            "low": lambda f: rounded(f.change.test.low),
            "high": lambda f: rounded(f.change.test.high),
            "each": lambda f: values_text(f.change.test) or None,
            "kept": lambda f: rounded(f.kept),
            "Wilcoxon p": lambda f: f.change.p,
            "note": lambda f: f.change.test.note or None,
        },
    )


def _persons(found: tuple[Forgotten, ...]) -> ReportTable:
    rows = tuple(
        (f.change.test_set.name, f.change.second, f.change.n, person, round(before, 4), round(after, 4))
        for f in found
        for person, (before, after) in f.persons.items()
    )
    return ReportTable(
        "forgetting_persons", "The same by person.", ("test set", "method", "n", "person", "before", "after"), rows
    )
