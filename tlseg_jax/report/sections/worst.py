"""Section: what to distrust: on whom the recommended method does worse, and where it is worst."""

from collections.abc import Sequence

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.figures.choose_cases import of_best
from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS
from tlseg_jax.report.stats.groups import Group, compare_groups
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import count_failures, hardest_persons, worst_cases
from tlseg_jax.report.view import View
from tlseg_jax.report.words import study_words as words
from tlseg_jax.report.words.groups import group_words
from tlseg_jax.studies.results_table import Results


def worst(results: Results, study: StudyInfo) -> Section | None:
    """Groups of persons, single scans, the lowest persons, and structures that were missed.

    All but the table of misses is of the method and n that the answer names, or of all where it names none.
    """
    v = View(results, study)
    if not v.sets:
        return None
    lines, shown, own = [], [], of_best(results, v.best)
    if v.best is not None:
        groups = compare_groups(results, *v.best, study.people)
        lines += group_words(groups, *v.best)
        if groups:
            shown.append(_groups(groups, *v.best))
    lines += [*words.failure_words(count_failures(own, study), v.who), *words.hard_words(hardest_persons(own), v.who)]
    shown.append(tables.worst_table(worst_cases(own), v.who))
    failures = count_failures(results, study)
    if any(f.failures for f in failures):
        shown.append(tables.failures_table(failures))
    return Section("What to distrust: worst cases and failures", tuple(lines), tables=tuple(shown))


def _groups(found: Sequence[Group], method: str, n: int) -> ReportTable:
    """Persons by source, size of the structure and what is known of them, each group against the others."""
    columns = (
        "test set",
        "by",
        "group",
        "persons",
        "others",
        "seeds",
        "IoU mean",
        "low",
        "high",
        "difference",
        "difference low",
        "difference high",
        "seeds low",
        "seeds high",
        "adjusted p",
        "shown",
    )
    rows = []
    for g in found:
        i, over = g.interval, g.over_seeds or (None, None)
        mean = (i.n, g.others, g.seeds, *map(_short, (i.mean, i.low, i.high)))
        rows.append(
            (
                g.place,
                g.kind,
                g.name,
                *mean,
                *map(_short, (g.difference, g.low, g.high, *over)),
                float(f"{g.p:.3g}"),
                g.verdict,
            )
        )
    caption = (
        f"{method} with n = {n}: persons by group against the others "
        f"({words.persons_words(g.interval.n for g in found)} a group). The p is of Wilcoxon's rank-sum test, adjusted "
        f"(Holm) over all groups; intervals of the difference are over persons, from {LEAST_UNITS} in both on, and "
        "over seeds."
    )
    return ReportTable("groups", caption, columns, tuple(rows))


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
