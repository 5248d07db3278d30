"""What a study could have seen of differences between methods, and what it could not."""

from collections.abc import Sequence

from tlseg_jax.report.stats.method_tests import MethodTest
from tlseg_jax.report.stats.power import POWER, least_difference, median_of, persons_needed
from tlseg_jax.report.words.study_words import counted, persons_words

HOW = (
    f"The least difference that could be seen is the one that a study like this shows with a probability of {POWER:g} "
    "at best: by simulated Wilcoxon tests over persons at 0.05 two-sided after Holm's adjustment and, where there are "
    "several seeds, simulated t-intervals over them, of normal differences with the spreads that this study's had. The "
    "larger of both counts."
)
"""For the reports: what a least difference is."""


def seen_words(tests: Sequence[MethodTest]) -> str:
    """The least differences that a test set's comparisons could have seen, by n."""
    least = [v for group in by_n(tests).values() if (v := median_of(map(least_difference, group))) is not None]
    name, persons = tests[0].test_set.name, persons_words(t.test.n for t in tests)
    if not least:
        return f"On {name} {none_words(max(tests, key=lambda t: t.test.n))}."
    span = f"{min(least):.3f}" if len(least) == 1 else f"{min(least):.3f} to {max(least):.3f}, by n,"
    return (
        f"On {name} ({persons}, {counted(tests[0].family, 'comparison')}) a difference in {tests[0].measure} of {span} "
        "or more could be seen; a smaller one may be there all the same."
    )


def none_words(t: MethodTest) -> str:
    """Why a comparison can show no difference, however large, and how many persons could."""
    needed = persons_needed(t.family)
    if t.test.n >= needed:
        return (
            f"the differences of {counted(t.test.n, 'person')} have no spread, so it cannot be told what could be seen"
        )
    many = f" and {counted(t.family, 'comparison')}" if t.family > 1 else ""
    return (
        f"{counted(t.test.n, 'person')}{many} cannot show a difference, however large: it takes {needed} persons for "
        "Wilcoxon's test"
    )


def by_n(tests: Sequence[MethodTest]) -> dict[int, list[MethodTest]]:
    """The tests of each n, rising."""
    return {n: [t for t in tests if t.n == n] for n in sorted({t.n for t in tests})}
