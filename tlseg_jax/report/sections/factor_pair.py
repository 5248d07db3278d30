"""Two pre-training data sets that differ in one factor, compared at each n on the same persons."""

from collections.abc import Iterable
from pathlib import Path

from tlseg_jax.datasets.factors import FACTORS, Levels
from tlseg_jax.report.figures.factor_figures import draw_pair
from tlseg_jax.report.page.sections import ReportFigure, ReportTable, Section
from tlseg_jax.report.stats.compare_stats import FEWER, PairedTest, paired_test, spread_caption
from tlseg_jax.report.stats.factor_scores import POINTS, runs_of
from tlseg_jax.studies.results_table import ResultRow, Role, by_person

ROLES: tuple[Role, ...] = ("target", "unseen")


def compare_pair(rows: Iterable[ResultRow], first: Levels, second: Levels, role: Role) -> dict[int, PairedTest]:
    """Second minus first in IoU at each n that both have, over the persons that both were tested on."""
    by_levels: dict[tuple[tuple[str, ...], int], list[ResultRow]] = {}
    for (_, n), of in runs_of(rows, role).items():
        by_levels.setdefault((tuple(of[0].factors[f] for f in FACTORS), n), []).extend(of)
    a, b = (tuple(levels.to_dict().values()) for levels in (first, second))
    out = {}
    for n in sorted({n for _, n in by_levels}):
        if (a, n) in by_levels and (b, n) in by_levels:
            x, y = by_person(by_levels[a, n]), by_person(by_levels[b, n])
            both = x.keys() & y.keys()
            if both:
                out[n] = paired_test({p: x[p] for p in both}, {p: y[p] for p in both})
    return out


def pair_section(rows: Iterable[ResultRow], first: Levels, second: Levels, png: Path, mark: str) -> Section | None:
    """What the one factor in which two data sets differ does, by n; None where the study lacks one of them."""
    rows = list(rows)
    tests: dict[str, dict[int, PairedTest]] = {
        role: found for role in ROLES if (found := compare_pair(rows, first, second, role))
    }
    if not tests:
        return None
    old, new = first.to_dict(), second.to_dict()
    ((factor, was, now),) = [(f, old[f], new[f]) for f in FACTORS if old[f] != new[f]]
    rest = ", ".join(old[f] for f in FACTORS if f != factor)
    paragraphs = [
        f"Two pre-training data sets that are alike ({rest}) but for {factor}: {was} against {now}. "
        "The levels are those of the paper's MAL-C, and of MAL-C had it been in MNI305 space. "
        "There is one pre-trained model of each: the intervals speak for persons, not for another pre-training."
    ]
    lines = []
    for role, by_n in tests.items():
        for n, t in by_n.items():
            paragraphs.append(f"{role.capitalize()} data, n = {n}: {_said(t, now, was)}.")
            points = (None if v is None else round(POINTS * v, 3) for v in (t.mean_difference, t.low, t.high))
            each = ", ".join(f"{POINTS * v:.3f}" for v in t.values) or None
            lines.append((role, n, t.n, *points, each, t.wilcoxon_p, t.note))
    draw_pair(tests, png, f"{now} \N{MINUS SIGN} {was}, IoU points", mark)
    persons = max(t.n for by_n in tests.values() for t in by_n.values())
    spread = spread_caption(t.n for by_n in tests.values() for t in by_n.values())
    figure = ReportFigure(
        png,
        f"{now} minus {was} in IoU points by n, means over up to {persons} persons with {spread}. {FEWER}",
        "Difference of the pair by number of labelled scans",
    )
    table = ReportTable(
        "factor_pair",
        f"{now} minus {was} in IoU points, over persons.",
        ("data", "n", "persons", "difference", "low", "high", "each", "Wilcoxon signed-rank p", "note"),
        tuple(lines),
    )
    return Section(
        f"The same data in {now} space" if factor == "space" else f"{now} for {was}",
        tuple(paragraphs),
        (figure,),
        (table,),
    )


def _said(t: PairedTest, now: str, was: str) -> str:
    if t.mean_difference is None:
        return "no scores"
    said = f"{now} gives {POINTS * t.mean_difference:+.1f} IoU points over {was} ({t.n} person{'s' * (t.n != 1)}"
    if t.low is None or t.high is None:
        each = ", ".join(f"{POINTS * v:+.1f}" for v in t.values)
        return f"{said}: {each})" if t.n > 1 else f"{said})"
    return f"{said}, 95% interval {POINTS * t.low:+.1f} to {POINTS * t.high:+.1f})"
