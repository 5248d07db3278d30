"""What is said of others beside a study: what their lines are, and on whom they rest."""

from collections.abc import Sequence

from tlseg_jax.report.stats.sweep_stats import OtherScore


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
