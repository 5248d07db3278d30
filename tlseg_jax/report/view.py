"""What the sections of a study share: which methods there are, how figures show them, and where figures go."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from tlseg_jax.figures.style import MANY, MethodStyle, save_figure, style_methods
from tlseg_jax.report.page.sections import ReportFigure
from tlseg_jax.report.stats.compare_stats import spread_caption
from tlseg_jax.report.stats.method_tests import main_methods
from tlseg_jax.report.stats.sweep_stats import (
    OtherScore,
    Score,
    ScoredSet,
    mean_scores,
    method_order,
    other_scores,
    scored_sets,
)
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import best_method
from tlseg_jax.report.words.study_words import persons_words
from tlseg_jax.studies.assess import mark_of
from tlseg_jax.studies.results_table import Results, Role


class View:
    """A study with its results.

    Attributes:
      order: its methods that have scores.
      main: those of them that are no remedies.
      many: whether these are more than one figure can tell apart.
      sets: what was scored: the target's test set, then unseen ones.
      styles: how every figure shows a method.
      mark: watermark of the figures; "" for real scans.
    """

    def __init__(self, results: Results, study: StudyInfo) -> None:
        self.results, self.study = results, study
        self.order = method_order(results, study)
        self.main = main_methods(results, study)
        self.many = len(self.main) > MANY
        self.sets = scored_sets(results)
        self.styles: Mapping[str, MethodStyle] = style_methods(self.order)
        self.mark = mark_of(results.synthetic or study.synthetic)

    @functools.cached_property
    def scores(self) -> tuple[Score, ...]:
        """IoU of every method, n and test set."""
        return mean_scores(self.results, self.study)

    @functools.cached_property
    def best(self) -> tuple[str, int] | None:
        """The method and n that the page's answer names; in the tab of a structure, that of the page still."""
        return self.study.recommended or best_method(self.of_main)

    @property
    def who(self) -> str:
        """The same in words."""
        return f"{self.best[0]} with n = {self.best[1]}" if self.best else "all methods and n"

    @property
    def of_main(self) -> Results:
        """The rows of the methods that are no remedies."""
        return dataclasses.replace(self.results, rows=tuple(r for r in self.results if r.method in self.main))

    def of_role(self, role: Role) -> list[ScoredSet]:
        """The test sets that are this to the models."""
        return [s for s in self.sets if s.role == role]

    def scores_on(self, where: ScoredSet) -> list[Score]:
        """Of the methods that are no remedies."""
        return [s for s in self.scores if s.test_set == where and s.method in self.main]

    def others_on(self, sets: Sequence[ScoredSet]) -> list[OtherScore]:
        """What stands beside the study's scores on these test sets."""
        return [o for o in other_scores(self.results) if o.test_set in sets]

    def people_on(self, sets: Sequence[ScoredSet]) -> str:
        """ "hdt_c: 12 persons; oas_c: 8 persons", of the scores on these test sets."""
        return "; ".join(f"{w.name}: {persons_of(self.scores_on(w))}" for w in sets)

    def png(self, stem: str) -> Path:
        """Where a figure goes."""
        return self.study.figures / f"{stem}.png"

    def save(self, figure: Figure, stem: str, caption: str, alt: str, heading: str = "") -> ReportFigure:
        """A figure that is to stand there, with its SVG beside it; for the heading see `save_png`."""
        save_figure(figure, self.png(stem), heading=heading, mark=self.mark)
        return self.figure(stem, caption, alt)

    def figure(self, stem: str, caption: str, alt: str) -> ReportFigure:
        """A figure that was drawn there."""
        return ReportFigure(self.png(stem), caption + (" The scans are synthetic." if self.mark else ""), alt)


def titled(where: ScoredSet) -> str:
    """A test set as a panel's title."""
    return f"{where.role}: {where.name}"


def spread_of(scores: Sequence[Score]) -> str:
    """What a caption calls the spread of these means."""
    return spread_caption(s.interval.n for s in scores)


def persons_of(scores: Sequence[Score]) -> str:
    """ "12 persons", of means."""
    return persons_words(s.interval.n for s in scores)
