"""What a sweep found, in sentences that are made from the numbers and say no more than they do."""

import dataclasses
from collections.abc import Iterable, Sequence

from tlseg_jax.report.stats.compare_stats import FEWER, LEVEL, Conclusion, conclude, spread_words
from tlseg_jax.report.stats.learning_fit import LabelsNeeded
from tlseg_jax.report.stats.sweep_stats import MethodTest, Score, VolumeAgreement
from tlseg_jax.report.sweep_cases import FailureCount, HardPerson
from tlseg_jax.report.words.compare_answers import count

UNITS = (
    "Persons are the units: a person's score is first averaged over the seeds and the person's scans. "
    f"Intervals are 95% bootstrap intervals over persons and hold for the runs that were made. {FEWER} Where methods "
    "are compared, an interval over the seeds tells what other runs would change."
)


def persons_words(counts: Iterable[int]) -> str:
    """ "12 persons", or "10 to 12 persons"."""
    there = sorted(set(counts))
    if not there:
        return "no person"
    return count(there[0], "person") if len(there) == 1 else f"{there[0]} to {there[-1]} persons"


def score_words(score: Score) -> str:
    """Mean, interval, persons and seeds of a score."""
    i = score.interval
    spread = spread_words(i)
    return f"{score.mean:.3f} ({spread + ', ' if spread else ''}{count(i.n, 'person')}, {count(score.seeds, 'seed')})"


def verdict(t: MethodTest) -> Conclusion:
    """What may be said of the second method; "higher" and "lower" also need an interval over seeds without 0."""
    found = conclude(t.test, t.p)
    if found in ("higher", "lower") and t.seeds_differ:
        return "cannot tell"
    return found


def numbers(t: MethodTest, unit: str = "IoU") -> str:
    """Mean difference, interval, persons, seeds and adjusted p of a test."""
    test = t.test
    if test.mean_difference is None:
        return "no person was scored with both"
    parts = [f"{test.mean_difference:+.3f} {unit}"]
    people = count(test.n, "person")
    spread = spread_words(test, "+.3f")
    parts.append(f"{spread} over {people}" if spread else people)
    over = t.seed_interval
    parts.append("1 seed" if over is None else f"{over[0]:+.3f} to {over[1]:+.3f} over {len(t.by_seed)} seeds")
    if t.p is not None:
        parts.append(f"adjusted p = {t.p:.2g}")
    return ", ".join(parts)


def why_open(t: MethodTest) -> str:
    """Why a test decides nothing."""
    test = t.test
    if test.n < 2 or test.mean_difference is None:
        return "one person has no spread to judge a difference by" if test.n else "no person was scored with both"
    if test.all_zero:
        return "no person differs"
    if t.least_p is not None and t.least_p >= LEVEL:
        return (
            f"{count(test.n, 'person')} and {count(t.family, 'comparison')} cannot give an adjusted p below "
            f"{t.least_p:.2g}"
        )
    if test.low is not None and test.high is not None and test.low <= 0 <= test.high:
        return "the interval includes 0"
    if t.p is None or t.p >= LEVEL:
        return f"the adjusted p is not below {LEVEL:g}"
    return "the interval over the seeds includes 0, so other runs could turn it round"


def difference(t: MethodTest) -> str:
    """One sentence on the second method against the first."""
    found = verdict(t)
    at = f"on {t.test_set.name} at n = {t.n}"
    if found in ("higher", "lower"):
        return f"{t.second} scored {found} than {t.first} {at} ({numbers(t)})."
    if found == "cannot tell":
        return f"It cannot be told whether {t.second} and {t.first} differ {at} ({numbers(t)}): {why_open(t)}."
    return (
        f"Not shown, but leaning: {t.second} scored {found.removeprefix('leans ')} than {t.first} {at} in every person "
        f"({numbers(t)}); {why_open(t)}."
    )


def turned(t: MethodTest) -> MethodTest:
    """The same comparison the other way round: the first method minus the second."""
    test = t.test

    def minus(x: float | None) -> float | None:
        return None if x is None else -x

    swapped = dataclasses.replace(
        test, mean_difference=minus(test.mean_difference), low=minus(test.high), high=minus(test.low),
        effect=minus(test.effect), rank_biserial=minus(test.rank_biserial),
        values=tuple(-v for v in reversed(test.values)),
    )  # fmt: skip
    by_seed = {seed: -d for seed, d in t.by_seed.items()}
    return dataclasses.replace(t, first=t.second, second=t.first, test=swapped, by_seed=by_seed)


def best_words(scores: Sequence[Score]) -> list[str]:
    """Which method had the highest mean on a test set at the fewest and at the most labelled scans."""
    lines = []
    numbers_tried = sorted({s.n for s in scores})
    for n in dict.fromkeys((*numbers_tried[:1], *numbers_tried[-1:])):
        best = max((s for s in scores if s.n == n), key=lambda s: s.mean)
        lowest = min((s for s in scores if s.n == n), key=lambda s: s.mean)
        line = f"With n = {n} the highest mean IoU on {best.test_set.name} was {best.method}'s, {score_words(best)}"
        if lowest.method != best.method:
            line += f"; the lowest was {lowest.method}'s, {score_words(lowest)}"
        lines.append(line + ".")
    return lines


def shown_words(tests: Sequence[MethodTest], what: str) -> str:
    """How many of a test set's comparisons showed a difference."""
    name = tests[0].test_set.name
    shown = sum(verdict(t) in ("higher", "lower") for t in tests)
    persons = persons_words(t.test.n for t in tests)
    return f"On {name}, {shown} of {count(len(tests), what)} showed a difference ({persons})."


def needed_words(method: str, name: str, needed: LabelsNeeded, persons: int) -> str:
    """How many labelled scans a method needs for an IoU."""
    where = f"{method} on {name}"
    if needed.reach == "not reached":
        return f"{where}: the fitted curve never reaches an IoU of {needed.level:g} ({count(persons, 'person')})."
    interval = f"95% interval {needed.interval}, " if needed.interval else ""
    beyond = ", which was not tried" if needed.reach == "beyond the range" else ""
    return (
        f"{where}: an IoU of {needed.level:g} takes {needed.words} labelled scans by the fitted curve{beyond} "
        f"({interval}{count(persons, 'person')})."
    )


def volume_words(one: VolumeAgreement) -> str:
    """Bias, limits and intraclass correlation of one method."""
    if one.limits is None:
        return f"{one.method} (n = {one.n}): limits of agreement need two persons or more."
    b = one.limits
    words = (
        f"{one.method} (n = {one.n}): predicted volumes differ from the reference by {b.bias.value:+.2f} ml on average "
        f"(95% interval {b.bias.low:+.2f} to {b.bias.high:+.2f}), and a single one by {b.lower.value:+.2f} to "
        f"{b.upper.value:+.2f} ml (95% limits of agreement; {count(b.n, 'person')})"
    )
    if one.icc is None:
        return words + "."
    a = one.icc.agreement
    interval = "" if a.low is None or a.high is None else f" (95% interval {a.low:.2f} to {a.high:.2f})"
    return f"{words}; ICC(A,1) = {a.value:.2f}{interval}."


def failure_words(failures: Sequence[FailureCount]) -> list[str]:
    """Each test set's failures in one sentence, with where most of them are."""
    lines = []
    for where in dict.fromkeys(f.test_set for f in failures):
        own = [f for f in failures if f.test_set == where]
        failed, every = sum(f.failures for f in own), sum(f.predictions for f in own)
        if not failed:
            lines.append(f"On {where.name} none of {count(every, 'prediction')} had an IoU below 0.1.")
            continue
        most = max(own, key=lambda f: f.failures)
        lines.append(
            f"On {where.name} {failed} of {count(every, 'prediction')} had an IoU below 0.1; most of them were of "
            f"{most.method} with n = {most.n} ({most.failures} of {most.predictions}, "
            f"{count(len(most.persons), 'person')}, nothing predicted in {most.empty})."
        )
    return lines


def hard_words(found: Sequence[HardPerson]) -> list[str]:
    """Who is hard for all methods, by test set."""
    lines = []
    for where in dict.fromkeys(h.test_set for h in found):
        own = [h for h in found if h.test_set == where]
        names = ", ".join(f"{h.person} ({h.iou:.3f})" for h in own)
        lines.append(
            f"Lowest on {where.name} over all methods and n: {names}; the first against a mean of "
            f"{own[0].others:.3f} of the other {own[0].persons - 1}."
        )
    return lines
