"""On whom a method does worse, in one sentence a kind of group."""

from collections.abc import Sequence

from tlseg_jax.report.stats.compare_stats import LEVEL, spread_words
from tlseg_jax.report.stats.groups import Group
from tlseg_jax.report.words.study_words import counted


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
