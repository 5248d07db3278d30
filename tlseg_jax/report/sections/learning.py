"""Section: fitted learning curves, and how many labelled scans an IoU takes."""

import math
from collections.abc import Sequence

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.figures.sweep_figures import draw_learning_curves
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS
from tlseg_jax.report.stats.learning_fit import LabelsNeeded, LearningCurve, NoCurve, labels_needed
from tlseg_jax.report.stats.sweep_stats import Score, ScoredSet, learning_curves
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View, titled
from tlseg_jax.report.words import study_words as words
from tlseg_jax.report.words.study_words import lines_caption
from tlseg_jax.studies.results_table import Results

LEVELS = 3
"""IoUs for which the labelled scans needed are told."""


def learning(results: Results, study: StudyInfo) -> Section:
    """Learning curves fitted to the means, and the labelled scans that an IoU takes."""
    v = View(results, study)
    fits = {k: f for k, f in learning_curves(results, study).items() if k[1] in v.main}
    curves = {k: f for k, f in fits.items() if isinstance(f, LearningCurve)}
    title = "Learning curves and labels needed"
    if not curves:
        reasons = dict.fromkeys(f.reason for f in fits.values() if isinstance(f, NoCurve))
        return Section(title, tuple(f"There is no fit, as {r}." for r in reasons))
    lines = [
        "IoU(n) = a - b / n^c is fitted to the means over persons by least squares; intervals are from fits to "
        f"persons drawn with replacement, where there are {LEAST_UNITS} or more. They do not count what other "
        "seeds, and so other labelled scans, would change."
    ]
    needed: list[tuple[ScoredSet, str, LearningCurve, LabelsNeeded]] = []
    levels = {where: _levels(v.scores_on(where)) for where in v.sets}
    for (where, method), fit in curves.items():
        needed += [(where, method, fit, labels_needed(fit, level)) for level in levels[where]]
    for where, method, fit, found in needed:
        # One level in words: the highest that any method's means have come to.
        if where.role == "target" and found.level == levels[where][-1] and not v.many:
            lines.append(words.needed_words(method, where.name, found, fit.persons))
    figures = []
    if not v.many:
        panels = {titled(w): v.scores_on(w) for w in v.sets}
        drawn = draw_learning_curves(panels, fits, v.styles, others=v.others_on(v.sets))
        caption = (
            f"Mean IoU over persons ({v.people_on(v.sets)}), the fitted curves and their pointwise 95% intervals, "
            f"where there are {LEAST_UNITS} persons or more."
        ) + lines_caption(v.others_on(v.sets))
        alt, heading = "fitted mean IoU over n by method", "Learning curves"
        figures.append(v.save(drawn, "learning_curves", caption, alt, heading))
    shown = (tables.curves_table(fits), *((tables.labels_table(needed),) if needed else ()))
    return Section(title, tuple(lines), tuple(figures), shown)


def _levels(scores: Sequence[Score]) -> list[float]:
    """Round IoUs up to the highest mean, rising: those for which it is worth asking how many scans they take."""
    highest, lowest = max(s.mean for s in scores), min(s.mean for s in scores)
    step = next((s for s in (0.1, 0.05, 0.02) if (highest - lowest) / s >= LEVELS), 0.01)
    top = math.floor(highest / step + 1e-9)
    return [round(i * step, 4) for i in range(top - LEVELS + 1, top + 1) if 0 < i * step < 1]
