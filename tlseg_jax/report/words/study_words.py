"""What a sweep found, in sentences that are made from the numbers and say no more than they do."""

from collections.abc import Iterable, Sequence

from tlseg_jax.report.stats.compare_stats import FEWER, LEVEL, spread_words
from tlseg_jax.report.stats.groups import Group
from tlseg_jax.report.stats.learning_fit import LabelsNeeded
from tlseg_jax.report.stats.sweep_stats import OtherScore, Score, VolumeAgreement
from tlseg_jax.report.sweep_cases import FailureCount, HardPerson

UNITS = (
    "Persons are the units: a person's score is first averaged over the seeds and the person's scans. "
    f"Intervals are 95% bootstrap intervals over persons and hold for the runs that were made. {FEWER} Where methods "
    "are compared, an interval over the seeds tells what other runs would change."
)


def counted(n: int, unit: str) -> str:
    """ "1 volume", "4 volumes"."""
    return f"{n} {unit}" + ("" if n == 1 else "s")


def persons_words(counts: Iterable[int]) -> str:
    """ "12 persons", or "10 to 12 persons"."""
    there = sorted(set(counts))
    if not there:
        return "no person"
    return counted(there[0], "person") if len(there) == 1 else f"{there[0]} to {there[-1]} persons"


def score_words(score: Score) -> str:
    """Mean, interval, persons and seeds of a score."""
    i = score.interval
    spread = spread_words(i)
    return (
        f"{score.mean:.3f} ({spread + ', ' if spread else ''}{counted(i.n, 'person')}, {counted(score.seeds, 'seed')})"
    )


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


def needed_words(method: str, name: str, needed: LabelsNeeded, persons: int) -> str:
    """How many labelled scans a method needs for an IoU."""
    where = f"{method} on {name}"
    if needed.reach == "not reached":
        return f"{where}: the fitted curve never reaches an IoU of {needed.level:g} ({counted(persons, 'person')})."
    interval = f"95% interval {needed.interval}, " if needed.interval else ""
    beyond = ", which was not tried" if needed.reach == "beyond the range" else ""
    return (
        f"{where}: an IoU of {needed.level:g} takes {needed.words} labelled scans by the fitted curve{beyond} "
        f"({interval}{counted(persons, 'person')})."
    )


def volume_words(one: VolumeAgreement) -> str:
    """Bias, limits and intraclass correlation of one method."""
    if one.limits is None:
        return f"{one.method} (n = {one.n}): limits of agreement need two persons or more."
    b = one.limits
    words = (
        f"{one.method} (n = {one.n}): predicted volumes differ from the reference by {b.bias.value:+.2f} ml on average "
        f"(95% interval {b.bias.low:+.2f} to {b.bias.high:+.2f}), and a single one by {b.lower.value:+.2f} to "
        f"{b.upper.value:+.2f} ml (95% limits of agreement; {counted(b.n, 'person')})"
    )
    if one.icc is None:
        return words + "."
    a = one.icc.agreement
    interval = "" if a.low is None or a.high is None else f" (95% interval {a.low:.2f} to {a.high:.2f})"
    return f"{words}; ICC(A,1) = {a.value:.2f}{interval}."


def failure_words(failures: Sequence[FailureCount], who: str) -> list[str]:
    """The failures of a method, or of all, on each test set in one sentence."""
    each = []
    for where in dict.fromkeys(f.test_set for f in failures):
        own = [f for f in failures if f.test_set == where]
        failed, every = sum(f.failures for f in own), sum(f.predictions for f in own)
        persons = counted(len({p for f in own for p in f.persons}), "person")
        empty = sum(f.empty for f in own)
        each.append(
            f"{failed} of {every} on {where.name} ({persons}; nothing was predicted in {empty})"
            if failed
            else f"none of {every} on {where.name}"
        )
    return [f"Predictions of {who} with an IoU below 0.1: {'; '.join(each)}."] if each else []


def hard_words(found: Sequence[HardPerson], who: str) -> list[str]:
    """The lowest persons of a method, or of all, by test set."""
    lines = []
    for where in dict.fromkeys(h.test_set for h in found):
        own = [h for h in found if h.test_set == where]
        names = ", ".join(f"{h.person} ({h.iou:.3f})" for h in own)
        lines.append(
            f"Lowest persons of {who} on {where.name}: {names}; the first against a mean of {own[0].others:.3f} of the "
            f"other {own[0].persons - 1}."
        )
    return lines


def lines_caption(found: Sequence[OtherScore]) -> str:
    """What a caption says of the dashed lines; empty without any."""
    by_set: dict[str, list[str]] = {}
    for o in found:
        if o.score:
            whom = f" ({o.partly})" if o.partly else ""
            by_set.setdefault(o.test_set.name, []).append(f"{o.name} {o.score.mean:.3f}{whom}")
    if not by_set:
        return ""
    each = "; ".join(f"on {name}: {', '.join(of_set)}" for name, of_set in by_set.items())
    return f" Dashed lines are others, which have no n: their mean IoU over the same persons, {each}."


def missing_words(found: Sequence[OtherScore]) -> list[str]:
    """Where others have no score, or not of every person."""
    lines = [
        f"{o.name} has {o.partly} of {o.test_set.name}: its mean is over those, and it is compared over those alone."
        for o in found
        if o.partly
    ]
    return lines + [
        f"{o.name} has no person of {o.test_set.name} with all scans, so it has no line there."
        for o in found
        if not o.score
    ]


def group_words(found: Sequence[Group], method: str, n: int) -> list[str]:
    """What to distrust one method for, at one n, with every group's mean, persons and seeds where there are enough."""
    lines, few = [], []
    for place, kind in dict.fromkeys((g.place, g.kind) for g in found):
        own = [g for g in found if (g.place, g.kind) == (place, kind)]
        where = "" if place == "all" else f" on {place}"
        low = min(own, key=lambda g: (g.verdict != "lower", g.difference))
        each = "; ".join(f"{g.name} {_mean(g)}" for g in own)
        if low.verdict == "lower":
            lines.append(
                f"**By {kind}**{where}, {method}'s IoU with n = {n} was lower for {low.name} than for the others, by "
                f"{-low.difference:.3f} ({_numbers(low)}): {each}."
            )
        elif low.least_p >= LEVEL:
            few.append(f"by {kind}{where} ({low.interval.n} against {counted(low.others, 'person')})")
        else:
            lines.append(f"**By {kind}**{where} no difference was shown ({_why(low)}): {each}.")
    if few:
        lines.append(f"**Too few persons** to show any difference of {method} with n = {n}: {', '.join(few)}.")
    return lines


def _mean(g: Group) -> str:
    spread = spread_words(g.interval) if g.interval.low is not None else ""
    held = [spread, counted(g.interval.n, "person"), counted(g.seeds, "seed")]
    return f"{g.interval.mean:.3f} ({', '.join(h for h in held if h)})"


def _numbers(g: Group) -> str:
    parts = []
    if g.low is not None and g.high is not None:
        parts.append(f"95% interval {-g.high:.3f} to {-g.low:.3f}")
    if g.over_seeds:
        parts.append(f"{-g.over_seeds[1]:.3f} to {-g.over_seeds[0]:.3f} over {g.seeds} seeds")
    return ", ".join((*parts, f"adjusted p = {g.p:.2g}"))


def _why(g: Group) -> str:
    if g.p >= LEVEL:
        return f"lowest for {g.name}, adjusted p = {g.p:.2g}"
    return f"lowest for {g.name}, adjusted p = {g.p:.2g}, but an interval includes 0"
