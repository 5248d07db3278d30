"""The one wording of a difference between two methods, which says no more than its test; and of what could be seen."""

from collections.abc import Sequence

from tlseg_jax.report.stats.compare_stats import LEVEL, Conclusion, spread_words
from tlseg_jax.report.stats.method_tests import Forgotten, MethodTest
from tlseg_jax.report.stats.power import POWER, least_difference, median_of, persons_needed
from tlseg_jax.report.stats.speed import AREA, STEPS
from tlseg_jax.report.words.study_words import counted, persons_words

LITTLE = 0.05
"""A Dice below this on the pre-task leaves next to nothing to forget."""


def numbers(t: MethodTest) -> str:
    """Mean difference, interval, units, seeds and adjusted p of a test."""
    test, form = t.test, "+.0f" if t.measure == STEPS else "+.3f"
    if test.mean_difference is None:
        return f"no {t.unit} was measured with both"
    units, spread = counted(test.n, t.unit), spread_words(test, form)
    parts = [f"{test.mean_difference:{form}}", f"{spread} over {units}" if spread else units]
    if t.unit != "seed":
        over = t.seed_interval
        parts.append("1 seed" if over is None else f"{over[0]:{form}} to {over[1]:{form}} over {len(t.by_seed)} seeds")
    if t.p is not None:
        parts.append(f"adjusted p = {t.p:.2g}")
    return ", ".join(parts)


def why_open(t: MethodTest) -> str:
    """Why a comparison decides nothing."""
    test, unit = t.test, t.unit
    if test.n < 2 or test.mean_difference is None:
        return f"one {unit} has no spread to judge a difference by" if test.n else f"no {unit} was measured with both"
    if test.all_zero:
        return f"no {unit} differs"
    if t.least_p is not None and t.least_p >= LEVEL:
        many = f" and {counted(t.family, 'comparison')}" if t.family > 1 else ""
        return f"{counted(test.n, unit)}{many} cannot give a p below {t.least_p:.2g}"
    if test.low is not None and test.high is not None and test.low <= 0 <= test.high:
        return "the interval includes 0"
    if t.p is None or t.p >= LEVEL:
        return f"p is not below {LEVEL:g}"
    return "the interval over the seeds includes 0, so other runs could turn it round"


def difference(t: MethodTest) -> str:
    """One sentence on the second method against the first."""
    found, why = t.verdict, why_open(t)
    at = f"on {t.test_set.name} at n = {t.n}"
    if found in ("higher", "lower"):
        return f"{t.second}'s {t.measure} was {found} than {t.first}'s {at} ({numbers(t)})."
    if found == "cannot tell":
        return (
            f"It cannot be told whether the {t.measure} of {t.second} and {t.first} differs {at} ({numbers(t)}): {why}."
        )
    return (
        f"Not shown, but leaning: {t.second}'s {t.measure} was {found.removeprefix('leans ')} than {t.first}'s {at} "
        f"for every {t.unit} ({numbers(t)}); {why}."
    )


def verdict_words(tests: Sequence[MethodTest]) -> list[str]:
    """A test set's comparisons by what they found: shown, the same way in every unit, not told apart; a sentence each.

    Many comparisons are read sooner so than by a sentence each (`difference`); p and seeds stand in the table.
    """
    kinds = {
        "shown": "Shown",
        "leans": f"Not shown, but the same way for every {tests[0].unit}",
        "cannot tell": "Not told apart",
    }
    found: dict[str, dict[str, list[str]]] = {kind: {} for kind in kinds}
    for t in tests:
        way = t.verdict.removeprefix("leans ")
        kind = "shown" if way == t.verdict else "leans"
        who = f"{t.second} {way} than {t.first}"
        if way == "cannot tell":
            kind, who = way, f"{t.second} and {t.first}"
        found[kind].setdefault(who, []).append(f"n = {t.n}: {_brief(t)}")
    where = tests[0].test_set.name
    lines = []
    for kind, said in kinds.items():
        named = [f"{who} at {', '.join(at_n)}" for who, at_n in found[kind].items()]
        lines += [f"{said} on {where}: {'; '.join(named)}."] if named else []
    return lines


def _brief(t: MethodTest) -> str:
    """The mean difference, with the interval over persons where there is one."""
    if t.test.mean_difference is None:
        return f"no {t.unit} with both"
    spread = spread_words(t.test, "+.3f") if t.test.low is not None else ""
    return f"{t.test.mean_difference:+.3f}{f' ({spread})' if spread else ''}"


def shown_words(tests: Sequence[MethodTest]) -> str:
    """How many of a test set's comparisons showed a difference."""
    shown = sum(t.verdict in ("higher", "lower") for t in tests)
    persons = persons_words(t.test.n for t in tests)
    name = tests[0].test_set.name
    return f"On {name}, {shown} of {counted(len(tests), 'comparison')} showed a difference ({persons})."


_SIGNS: dict[Conclusion, int] = {"higher": 1, "leans higher": 1, "lower": -1, "leans lower": -1, "cannot tell": 0}


def speed_words(steps: MethodTest, area: MethodTest) -> str:
    """Whether the second method converges more slowly than the first, which needs both measures to say so."""
    a, b = _SIGNS[steps.verdict], _SIGNS[area.verdict]
    who, at = f"{steps.second} converged {{}} than {steps.first}", f"at n = {steps.n}"
    both = f"{STEPS}: {numbers(steps)}; {AREA}: {numbers(area)}"
    word = "more slowly" if a > 0 else "faster"
    if a == b != 0:
        open_one = next((t for t in (steps, area) if t.verdict.startswith("leans")), None)
        if open_one is None:
            return f"{who.format(word)} {at} ({both})."
        return f"Not shown, but leaning: {who.format(word)} {at} with every seed ({both}); {why_open(open_one)}."
    t = area if a else steps
    why = "the two measures disagree" if a * b < 0 else why_open(t)
    return f"It cannot be told whether {who.format('more slowly or faster')} {at} ({both}): {why}."


def forgotten_words(f: Forgotten) -> str:
    """What one method kept of its pre-task."""
    t, test, why = f.change, f.change.test, why_open(f.change)
    said = {
        "lower": "it forgot",
        "higher": "it got better there",
        "leans lower": f"lower for every person, but {why}",
        "leans higher": f"higher for every person, but {why}",
        "cannot tell": f"it cannot be told whether it forgot: {why}",
    }[t.verdict]
    spread = f", {spread_words(test, '+.3f')}" if spread_words(test) else ""
    p = "" if t.p is None else f", p = {t.p:.2g}"
    nothing = f.before < LITTLE  # of which a share says nothing
    share = "" if f.kept is None or nothing else f", {100 * f.kept:.0f}% of what it was"
    little = " There was next to nothing to forget." if nothing else ""
    return (
        f"{t.second} at n = {t.n}: Dice on {t.test_set.name} {f.before:.3f} before the transfer and {f.after:.3f} "
        f"after it{share} ({test.mean_difference:+.3f}{spread}{p}, {counted(test.n, 'person')}, "
        f"{counted(f.seeds, 'seed')}): {said}.{little}"
    )


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
