"""Section: what to distrust: on whom the recommended method does worse, and where it is worst."""

from collections.abc import Sequence

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.page.sections import ReportTable, Section, rounded, significant, table_of
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS
from tlseg_jax.report.stats.groups import Group, compare_groups
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import count_failures, hardest_persons, of_best, worst_cases
from tlseg_jax.report.view import View
from tlseg_jax.report.words import study_words as words
from tlseg_jax.report.words.study_words import group_words
from tlseg_jax.studies.results_table import Results


def worst(results: Results, study: StudyInfo) -> Section:
    """Groups of persons, single scans, the lowest persons, and structures that were missed.

    All but the table of misses is of the method and n that the answer names, or of all where it names none.
    """
    v = View(results, study)
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
    caption = (
        f"{method} with n = {n}: persons by group against the others "
        f"({words.persons_words(g.interval.n for g in found)} a group). The p is of Wilcoxon's rank-sum test, adjusted "
        f"(Holm) over all groups; intervals of the difference are over persons, from {LEAST_UNITS} in both on, and "
        "over seeds."
    )
    return table_of(
        "groups",
        caption,
        found,
        {
            "test set": lambda g: g.place,
            "by": lambda g: g.kind,
            "group": lambda g: g.name,
            "persons": lambda g: g.interval.n,
            "others": lambda g: g.others,
            "seeds": lambda g: g.seeds,
            "IoU mean": lambda g: rounded(g.interval.mean),
            "low": lambda g: rounded(g.interval.low),
            "high": lambda g: rounded(g.interval.high),
            "difference": lambda g: rounded(g.difference),
            "difference low": lambda g: rounded(g.low),
            "difference high": lambda g: rounded(g.high),
            "seeds low": lambda g: rounded(g.over_seeds[0]) if g.over_seeds else None,
            "seeds high": lambda g: rounded(g.over_seeds[1]) if g.over_seeds else None,
            "adjusted p": lambda g: significant(g.p),
            "shown": lambda g: g.verdict,
        },
    )
