"""Sections of a factor study: what each property of the pre-training data does."""

import functools
from collections.abc import Iterable

from tlseg_jax.datasets.factors import EXTRA_POINTS, FACTORS, Levels
from tlseg_jax.report.figures.effect_figures import draw_forest, draw_pair
from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.stats.compare_stats import FEWER, PairedTest, paired_test, spread_caption
from tlseg_jax.report.stats.effect_coding import name_of
from tlseg_jax.report.stats.factor_analysis import POINTS, FactorAnalysis, analyse, runs_of, shift_losses, target_scores
from tlseg_jax.report.stats.mixed_model import Effect
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import ResultRow, Results, Role, by_person

TARGET, LOSS = "IoU on the target", "loss on unseen data"


@functools.lru_cache(maxsize=1)  # two sections ask for the same fits
def _analyses(rows: tuple[ResultRow, ...]) -> tuple[tuple[FactorAnalysis, ...], tuple[str, ...]]:
    """What can be estimated of target IoU and of the loss under domain shift, and why the rest cannot.

    Rows without all six factors, and remedies, take no part.
    """
    found: list[FactorAnalysis] = []
    said: list[str] = []
    losses, left_out = shift_losses(rows)
    for measure, observations in ((TARGET, target_scores(rows)), (LOSS, losses)):
        try:
            found.append(analyse(measure, observations))
        except InputError as e:
            said.append(f"Effects on the {measure} are not estimated: {e}")
    if left_out:
        said.append(
            f"The {LOSS} is not known for {left_out} pre-trained model(s) and n: not all persons are scored yet."
        )
    return tuple(found), tuple(said)


def factor_effects(results: Results, study: StudyInfo) -> Section | None:
    """Main effects of the properties of the pre-training data; nothing for a study without factors."""
    if not runs_of(results.rows, "target"):
        return None
    v, title = View(results, study), "What the pre-training data changes"
    found, said = _analyses(results.rows)
    if not found:
        return Section(title, said)
    paragraphs = [
        "Each pre-trained model saw data of its own levels of structure, disease, space, skull, scanner and labels; "
        "all are then fine-tuned on the same target scans. An effect is the difference between the means of two "
        "levels, all else equal, in IoU points (hundredths of IoU), by a linear mixed model with the number of "
        "labelled scans (log2 n) and random intercepts for the pre-trained model, for its fine-tuned models at each n "
        "and for the person. Scores are first averaged over seeds.",
        "The intervals speak for further pre-trained models of the same kind and for these test persons. Each holds "
        f"with 95%, not all {len(found[0].main_effects)} at once: a single effect just off 0 is weak evidence.",
    ]
    for a in found:
        paragraphs += _sentences(a)
    paragraphs += said
    caption = f"Main effects of the pre-training data's factors with 95% intervals ({_counts(found[0])})."
    loss = any(a.measure == LOSS for a in found)
    caption += " A positive effect on the loss means less robust to unseen data." if loss else ""
    figure = v.save(draw_forest(found, "main"), "factor_effects", caption, "Forest plot of main effects")
    effects = ReportTable(
        "factor_main_effects",
        f"Main effects in IoU points ({_counts(found[0])}).",
        _HEADINGS,
        tuple(_row(a.measure, e) for a in found for e in (*a.main_effects, *((a.of_n,) if a.of_n else ()))),
    )
    parts = ReportTable(
        "factor_random_parts",
        "Standard deviations of the random parts in IoU points: what varies where all levels are equal.",
        ("measure", "random part", "standard deviation"),
        tuple((a.measure, name, sd) for a in found for name, sd in a.main.deviations.items()),
    )
    return Section(title, tuple(paragraphs), (figure,), (effects, parts))


def factor_interactions(results: Results, study: StudyInfo) -> Section | None:
    """Two-way interactions of the factors, where they can be estimated."""
    if not runs_of(results.rows, "target"):
        return None
    v = View(results, study)
    found = [a for a in _analyses(results.rows)[0] if a.interactions]
    if not found:
        return None
    paragraphs = [
        "An interaction is a difference of differences, in IoU points: how much more the first factor's change does "
        "when the second factor is changed too."
    ]
    a = found[0]
    if any(a.separable.aliases.values()):
        paragraphs.append(
            "The design is a fraction: interactions joined by 'or' cannot be told apart in it, and the estimate is of "
            "their sum (up to sign)."
        )
    if a.separable.lost:
        lost = ", ".join(map(name_of, a.separable.lost))
        paragraphs.append(f"Not estimated, for want of data sets that tell them from other effects: {lost}.")
    for a in found:
        apart = [e for e in a.interactions if e.low > 0 or e.high < 0]
        df = a.full.df if a.full else 0
        paragraphs.append(
            f"On the {a.measure}, {len(apart)} of {len(a.interactions)} intervals leave out 0 ({_counts(a)}; "
            f"{df} degrees of freedom)" + (f": {'; '.join(_said(e) for e in apart)}." if apart else ".")
        )
    caption = f"Two-way interactions with 95% intervals ({_counts(found[0])})."
    drawn = draw_forest(found, "interaction")
    figure = v.save(drawn, "factor_interactions", caption, "Forest plot of interactions")
    table = ReportTable(
        "factor_interactions",
        f"Two-way interactions in IoU points ({_counts(found[0])}).",
        _HEADINGS,
        tuple(_row(a.measure, e) for a in found for e in a.interactions),
    )
    return Section("Whether factors depend on each other", tuple(paragraphs), (figure,), (table,))


_HEADINGS = ("measure", "effect", "contrast", "difference", "low", "high", "degrees of freedom")


def _row(measure: str, e: Effect) -> tuple[str, str, str, float, float, float, int]:
    return measure, e.name, e.contrast, round(e.difference, 3), round(e.low, 3), round(e.high, 3), e.df


def _sentences(a: FactorAnalysis) -> list[str]:
    apart = [e for e in a.main_effects if e.low > 0 or e.high < 0]
    others = [e for e in a.main_effects if e not in apart]
    out = []
    if apart:
        out.append(f"On the {a.measure} ({_counts(a)}), 95% intervals: {'; '.join(_said(e) for e in apart)}.")
    if others:
        out.append(
            f"On the {a.measure} ({_counts(a)}), the interval holds 0 for {'; '.join(_said(e) for e in others)}: "
            "this study does not show these to matter, nor that they do not."
        )
    if a.of_n:
        out.append(f"Twice as many labelled scans change the {a.measure} by {_number(a.of_n)} ({_counts(a)}).")
    out += [f"On the {a.measure}: {note}." for note in a.main.notes]
    if a.full and a.full is not a.main:
        out += [f"On the {a.measure}, in the fit with interactions: {note}." for note in a.full.notes]
    return out


def _said(e: Effect) -> str:
    return f"{e.name} ({e.contrast}) {_number(e)}"


def _number(e: Effect) -> str:
    return f"{e.difference:+.1f} points ({e.low:+.1f} to {e.high:+.1f})"


def _counts(a: FactorAnalysis) -> str:
    of_persons = f", {a.main.persons} persons" if a.main.persons else ""
    return f"{a.main.models} pre-trained models, {a.main.cells} of model and n{of_persons}"


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
            if x.keys() & y.keys():
                out[n] = paired_test(x, y)
    return out


def factor_pair(results: Results, study: StudyInfo) -> Section | None:
    """The paper's MAL-C against its twin in MNI305 space, by n; None where the study lacks one of them."""
    first, second = EXTRA_POINTS["mal_c"], EXTRA_POINTS["mal_c_mni305"]
    tests: dict[str, dict[int, PairedTest]] = {
        role: found for role in ROLES if (found := compare_pair(results, first, second, role))
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
            paragraphs.append(f"{role.capitalize()} data, n = {n}: {_said_of_pair(t, now, was)}.")
            points = (None if v is None else round(POINTS * v, 3) for v in (t.mean_difference, t.low, t.high))
            each = ", ".join(f"{POINTS * v:.3f}" for v in t.values) or None
            lines.append((role, n, t.n, *points, each, t.wilcoxon_p, t.note))
    persons = max(t.n for by_n in tests.values() for t in by_n.values())
    spread = spread_caption(t.n for by_n in tests.values() for t in by_n.values())
    figure = View(results, study).save(
        draw_pair(tests, f"{now} \N{MINUS SIGN} {was}, IoU points"),
        "factor_pair",
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


def _said_of_pair(t: PairedTest, now: str, was: str) -> str:
    if t.mean_difference is None:
        return "no scores"
    said = f"{now} gives {POINTS * t.mean_difference:+.1f} IoU points over {was} ({t.n} person{'s' * (t.n != 1)}"
    if t.low is None or t.high is None:
        each = ", ".join(f"{POINTS * v:+.1f}" for v in t.values)
        return f"{said}: {each})" if t.n > 1 else f"{said})"
    return f"{said}, 95% interval {POINTS * t.low:+.1f} to {POINTS * t.high:+.1f})"
