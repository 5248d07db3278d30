"""The report's questions answered in sentences that are made from the numbers, and that say no more than they do."""

import math
from collections.abc import Callable, Sequence

from tlseg_jax.report.compare_analysis import Comparison, Group
from tlseg_jax.report.stats.compare_stats import LEVEL, Conclusion, Forgetting, PairedTest, conclude, spread_words

LITTLE = 0.05
"""A Dice below this on the pre-training task leaves next to nothing to forget."""


def count(n: int, unit: str) -> str:
    """ "1 volume", "4 volumes"."""
    return f"{n} {unit}" + ("" if n == 1 else "s")


def numbers(test: PairedTest, p: float | None, unit: str, form: str = "+.3f", name: str = "adjusted p") -> str:
    """Mean difference, interval, p (called `name`) and units of a test, in words."""
    if test.mean_difference is None:
        return f"no {unit} was measured for both"
    parts = [f"mean difference {test.mean_difference:{form}}"]
    if spread := spread_words(test, form):
        parts.append(spread)
    if p is not None:
        parts.append(f"{name} = {p:.2g}")
    return ", ".join([*parts, count(test.n, unit)])


def why_not(test: PairedTest, p: float | None, unit: str) -> str:
    """Why a test decides nothing."""
    if test.n == 0 or test.mean_difference is None:
        return f"no {unit} was measured for both"
    if test.n == 1:
        return f"one {unit} has no spread to judge a difference by"
    if test.all_zero:
        return f"no {unit} differs"
    if not test.can_decide:
        reason = f"{count(test.n, unit)} cannot give less than p = {test.smallest_p:.2g} in Wilcoxon's exact test"
        return reason if test.same_sign else f"{reason}, and the signs differ between {unit}s"
    if test.low is not None and test.high is not None and test.low <= 0 <= test.high:
        return "the interval includes 0"
    return f"p is not below {LEVEL:g}" if p is not None else "there is no p-value"


def difference(c: Comparison, quantity: str, unit: str) -> str:
    """One sentence on the second model's `quantity` against the first's."""
    t, found = c.test, conclude(c.test, c.p)
    there = f"({numbers(t, c.p, unit)})"
    if found in ("higher", "lower"):
        return f"**Model {c.second}'s {quantity} was {found} than model {c.first}'s** {there}."
    if found != "cannot tell":
        return (
            f"**Not shown, but leaning:** model {c.second}'s {quantity} was {found.split()[1]} than model {c.first}'s "
            f"in each of {count(t.n, unit)} {there}; {why_not(t, c.p, unit)}."
        )
    return (
        f"**Cannot tell** whether model {c.second}'s {quantity} differs from model {c.first}'s {there}: "
        f"{why_not(t, c.p, unit)}."
    )


def answer_target(group: Group, target: str) -> list[str]:
    """Did pre-training help on the target?"""
    found = [difference(c, f"Dice on {target}", "volume") for c in group.on_target]
    return found or ["There are not two models to compare."]


def answer_convergence(group: Group) -> list[str]:
    """Does pre-training slow convergence? A sentence for each comparison; the units are seeds."""
    lines = []
    for steps, area in zip(group.steps, group.areas, strict=True):
        lines.append(
            f"{_speed(steps, area)} Smoothed training losses came down to {group.levels.end:.3g}, which every run "
            f"reached, after {_spread(group, steps.second)} steps for model {steps.second} and "
            f"{_spread(group, steps.first)} for model {steps.first} "
            f"({numbers(steps.test, steps.p, 'seed', '+.0f')}). The area under the loss was "
            f"{_area(group, area.second)} and {_area(group, area.first)} "
            f"({numbers(area.test, area.p, 'seed')})."
        )
    return lines or ["There are not two models to compare."]


def _speed(steps: Comparison, area: Comparison) -> str:
    """The verdict on two measures of which lower is faster; it needs both."""
    a, b = conclude(steps.test, steps.p), conclude(area.test, area.p)
    who = f"model {steps.second} converged {{}} than model {steps.first}"
    for word, sure, leaning in (("more slowly", "higher", "leans higher"), ("faster", "lower", "leans lower")):
        if a == b == sure:
            return f"**M{who[1:].format(word)}.**"
        if {a, b} <= {sure, leaning}:
            test, p = (steps.test, steps.p) if a == leaning else (area.test, area.p)
            return f"**Not shown, but leaning:** {who.format(word)} with every seed; {why_not(test, p, 'seed')}."
    if _sign(a) * _sign(b) < 0:
        return (
            f"**Cannot tell:** the two measures of how fast models {steps.second} and {steps.first} converge disagree."
        )
    open_one = steps if a == "cannot tell" else area
    return (
        f"**Cannot tell** whether {who.format('more slowly or faster')}: "
        f"{why_not(open_one.test, open_one.p, 'seed')}."
    )


def _sign(found: Conclusion) -> int:
    return {"higher": 1, "leans higher": 1, "lower": -1, "leans lower": -1, "cannot tell": 0}[found]


def _spread(group: Group, model: str) -> str:
    values = [c.steps_to_end for c in group.speed[model].values() if c.steps_to_end is not None]
    if not values:
        return "no number of"
    mean = sum(values) / len(values)
    return f"{mean:.0f}" + (f" ({min(values)} to {max(values)})" if len(values) > 1 else "")


def _area(group: Group, model: str) -> str:
    values = [c.area for c in group.speed[model].values() if math.isfinite(c.area)]
    return f"{sum(values) / len(values):.3g} for model {model}" if values else f"not defined for model {model}"


def answer_forgetting(group: Group, source: str | None) -> list[str]:
    """Does freezing keep what was learnt? Scores on the pre-training test set before and after the transfer."""
    if source is None or not group.forgotten:
        return ["Not measured: the models were not scored on the pre-training test set before and after the transfer."]
    lines = []
    kept = {m: f for m, f in group.forgotten.items() if m != "A"}
    before = next(iter(group.forgotten.values())).before
    if before.mean is not None:
        lines.append(
            f"Before the transfer the pre-trained model's mean Dice on {source} was {before.mean:.3f} "
            f"({count(before.n, 'volume')})."
            + (" That is next to nothing, so there was little to keep." if before.mean < LITTLE else "")
        )
    lines += [_forgotten(m, f) for m, f in kept.items()]
    own = group.forgotten.get("A")
    if own is not None and own.after.mean is not None:
        lines.append(f"Model A, which never saw that task, scores {own.after.mean:.3f} on it: the level of no memory.")
    freezing = [c for c in group.on_source if (c.first, c.second) == ("B", "C")]
    lines += [f"What freezing did: {difference(c, f'Dice on {source}', 'volume')}" for c in freezing]
    if not freezing:
        lines.append("Models B and C were not both scored there, so nothing is said about freezing.")
    return lines


def _forgotten(model: str, f: Forgetting) -> str:
    t = f.change
    if f.after.mean is None:
        return f"Model {model}: no volume was scored before and after."
    share = "" if f.kept is None else f", {100 * f.kept:.0f}% of what it was"
    found = conclude(t, t.wilcoxon_p)
    verdict = {
        "lower": "it forgot",
        "higher": "it got better there",
        "leans lower": f"lower in every volume, but {why_not(t, t.wilcoxon_p, 'volume')}",
        "leans higher": f"higher in every volume, but {why_not(t, t.wilcoxon_p, 'volume')}",
        "cannot tell": f"cannot tell whether it forgot, as {why_not(t, t.wilcoxon_p, 'volume')}",
    }[found]
    return (
        f"After it model {model} scored {f.after.mean:.3f}{share} "
        f"({numbers(t, t.wilcoxon_p, 'volume', name='p')}): {verdict}."
    )


def answers(
    groups: Sequence[Group], title: Callable[[Group], str], answer: Callable[[Group], list[str]]
) -> str:
    """The answer for each n, as Markdown lists."""
    parts = []
    for g in groups:
        heading = f"{title(g)}\n\n" if len(groups) > 1 else ""
        parts.append(heading + "\n".join(f"- {line}" for line in answer(g)))
    return "\n\n".join(parts)
