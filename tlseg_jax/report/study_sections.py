"""The parts of a study's report that are made from results.csv alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlseg_jax.figures.method_style import MANY, MethodStyle, style_methods
from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.figures.agreement_figure import draw_agreement
from tlseg_jax.report.figures.remedy_figure import draw_remedies
from tlseg_jax.report.figures.sweep_curves import draw_learning_curves
from tlseg_jax.report.figures.sweep_figures import draw_boxes, draw_many, draw_means
from tlseg_jax.report.page.sections import ReportFigure, Section
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS, spread_caption
from tlseg_jax.report.stats.learning_fit import LabelsNeeded, LearningCurve, NoCurve, labels_needed
from tlseg_jax.report.stats.sweep_stats import (
    MethodTest,
    Score,
    ScoredSet,
    compare_methods,
    compare_remedies,
    is_remedy,
    learning_curves,
    mean_scores,
    method_order,
    pretask_scores,
    scored_sets,
    volume_agreement,
)
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import count_failures, hardest_persons, worst_cases
from tlseg_jax.report.words import study_words as words
from tlseg_jax.studies.assess import mark_of
from tlseg_jax.studies.results_table import Results

LEVELS = 3
"""IoUs for which the labelled scans needed are told."""


def score_sections(results: Results, folder: Path, study: StudyInfo) -> tuple[Section, ...]:
    """Table 2, Figs. 5 and 6, learning curves, volumes, tests, remedies and worst cases of a study.

    Args:
      results: of the study's results.csv; an unfinished sweep's rows are enough.
      folder: of the report; figures are written to FOLDER/figures.
      study: what the sweep was asked for.

    Raises:
      InputError: a figure cannot be written.
    """
    return _Study(results, folder / "figures", study).sections()


class _Study:
    """What the sections share."""

    def __init__(self, results: Results, figures: Path, study: StudyInfo) -> None:
        self.results, self.figures, self.study = results, figures, study
        order = method_order(results, study)
        self.styles: Mapping[str, MethodStyle] = style_methods(order)
        self.main = [m for m in order if not is_remedy(m, study)]
        self.many = len(self.main) > MANY
        self.sets = scored_sets(results)
        self.scores = mean_scores(results, study)
        self.mark = mark_of(results.synthetic or study.synthetic)
        self.brain = study.kind == "volumes"

    def sections(self) -> tuple[Section, ...]:
        found = [self._pretasks()]
        if self.sets:
            found += [self._target(), self._unseen(), self._curves(), self._volumes(), self._tests(), self._remedies()]
            found.append(self._worst())
        return tuple(s for s in found if s is not None)

    def _of(self, role: str) -> list[ScoredSet]:
        return [s for s in self.sets if s.role == role]

    def _scores(self, where: ScoredSet, *, remedies: bool = False) -> list[Score]:
        return [s for s in self.scores if s.test_set == where and (remedies or s.method in self.main)]

    def _figure(self, stem: str, caption: str, alt: str) -> ReportFigure:
        mark = " The scans are synthetic." if self.mark else ""
        return ReportFigure(self.figures / f"{stem}.png", caption + mark, alt)

    def _paper(self, title: str, place: str) -> str:
        return f"{title} ({place})" if self.brain else title

    def _pretasks(self) -> Section | None:
        scores = pretask_scores(self.results)
        title = self._paper("Pre-trained models", "Table 2")
        if not scores:
            return Section(title, ("No pre-trained model was scored on a test set of its own.",))
        lines = [f"{s.method}: mean IoU {words.score_words(s)}." for s in scores] if len(scores) <= MANY else []
        return Section(title, tuple(lines), tables=(tables.table_2(scores),))

    def _target(self) -> Section | None:
        sets = self._of("target")
        title = self._paper("Target data by number of labelled scans", "Fig. 5")
        if not sets:
            return Section(title, ("No model was scored on the target's test set yet.",))
        lines, figures = [words.UNITS], []
        for where in sets:
            scores = self._scores(where)
            lines += words.best_words(scores)
            stem = f"iou_by_n_{where.name}"
            path, heading = self.figures / f"{stem}.png", f"IoU on {where.name}"
            persons = _persons(scores)
            if self.many:
                draw_many(scores, self.main, path, heading=heading, mark=self.mark)
                caption = f"Mean IoU on {where.name} with its {_spread(scores)} by method and n ({persons})."
            else:
                draw_boxes(scores, self.styles, path, heading=heading, mark=self.mark)
                caption = (
                    f"IoU of {persons} on {where.name}, averaged over seeds, by number of labelled scans; boxes in the "
                    f"order {', '.join(m for m in self.main if any(s.method == m for s in scores))}. A box holds the "
                    "middle half of the persons, its line is the median, whiskers reach the last person within 1.5 "
                    "box heights."
                )
            figures.append(self._figure(stem, caption, f"IoU on {where.name} by method and n"))
        table = tables.scores_table("target_scores", self.results, self.study, self.scores, sets)
        return Section(title, tuple(lines), tuple(figures), (table,))

    def _unseen(self) -> Section | None:
        sets = self._of("unseen")
        title = self._paper("Unseen data", "Fig. 6")
        if not sets:
            return Section(title, ("No data of another source were scored, so nothing is said of generalisation.",))
        lines = [line for where in sets for line in words.best_words(self._scores(where))]
        figures = []
        if self.many:
            for where in sets:
                stem = f"unseen_by_n_{where.name}"
                draw_many(
                    self._scores(where), self.main, self.figures / f"{stem}.png", heading=f"IoU on {where.name}",
                    mark=self.mark,
                )  # fmt: skip
                scores = self._scores(where)
                caption = f"Mean IoU on {where.name} with its {_spread(scores)} ({_persons(scores)})."
                figures.append(self._figure(stem, caption, f"mean IoU on {where.name} by method and n"))
        else:
            panels = {w.name: self._scores(w) for w in sets}
            draw_means(
                panels, self.styles, self.figures / "unseen_by_n.png", heading="Mean IoU on unseen data", mark=self.mark
            )
            people = "; ".join(f"{name}: {_persons(scores)}" for name, scores in panels.items())
            caption = (
                "Mean IoU on data of a source that no model was trained on, with its "
                f"{_spread([s for scores in panels.values() for s in scores])} ({people}). Methods "
                "are drawn side by side at each n."
            )
            figures.append(self._figure("unseen_by_n", caption, "mean IoU on unseen data by method and n"))
        table = tables.scores_table("unseen_scores", self.results, self.study, self.scores, sets)
        return Section(title, tuple(lines), tuple(figures), (table,))

    def _curves(self) -> Section | None:
        fits = {k: f for k, f in learning_curves(self.results, self.study).items() if k[1] in self.main}
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
        levels = {where: _levels(self._scores(where)) for where in self.sets}
        for (where, method), fit in curves.items():
            needed += [(where, method, fit, labels_needed(fit, level)) for level in levels[where]]
        for where, method, fit, found in needed:
            # One level in words: the highest that any method's means have come to.
            if where.role == "target" and found.level == levels[where][-1] and not self.many:
                lines.append(words.needed_words(method, where.name, found, fit.persons))
        figures = []
        if not self.many:
            panels = {
                _titled(w): (self._scores(w), {m: f for (s, m), f in fits.items() if s == w}) for w in self.sets
            }
            draw_learning_curves(
                panels, self.styles, self.figures / "learning_curves.png", heading="Learning curves", mark=self.mark
            )
            people = "; ".join(f"{w.name}: {_persons(self._scores(w))}" for w in self.sets)
            caption = (
                f"Mean IoU over persons ({people}), the fitted curves and their pointwise 95% intervals, where there "
                f"are {LEAST_UNITS} persons or more."
            )
            figures.append(self._figure("learning_curves", caption, "fitted mean IoU over n by method"))
        shown = (tables.curves_table(fits), *((tables.labels_table(needed),) if needed else ()))
        return Section(title, tuple(lines), tuple(figures), shown)

    def _volumes(self) -> Section | None:
        found = volume_agreement(self.results, self.study)
        if not found:
            return None
        lines = [
            "Volumes are what a trial measures. Limits of agreement (Bland & Altman 1999) hold 95% of the errors of "
            "single predictions; ICC(A,1) is the intraclass correlation of absolute agreement (McGraw & Wong 1996) of "
            "the persons' volumes, predicted ones averaged over the seeds.",
        ]
        figures = []
        if not self.many:
            lines += [words.volume_words(v) for v in found]
            path = self.figures / "volume_agreement.png"
            draw_agreement(found, self.styles, path, heading="Agreement of volumes", mark=self.mark)
            caption = (
                "Error of the predicted volume against the mean of both volumes, a point a person "
                f"({words.persons_words(len(v.points) for v in found)}, means over seeds), with bias and limits of "
                "agreement and their 95% intervals as bands; each method at its largest n."
            )
            figures.append(self._figure("volume_agreement", caption, "Bland-Altman panel of each method"))
        return Section("Volume agreement", tuple(lines), tuple(figures), (tables.volumes_table(found),))

    def _tests(self) -> Section | None:
        tests = compare_methods(self.results, self.study)
        title = "Paired tests between methods"
        if not tests:
            if self.study.has_factors:
                return None  # the levels of the factors are compared by a model of their own
            return Section(title, ("There are not two methods that were scored on the same persons.",))
        lines = [
            "A difference is called shown only where the adjusted p is below 0.05 and both intervals, over persons "
            "(where there are enough for one) and over seeds, are without 0; of a single seed it holds for that run "
            "alone."
        ]
        for where in self.sets:
            own = [t for t in tests if t.test_set == where]
            if own:
                lines.append(words.shown_words(own, "comparison"))
                lines += [words.difference(t) for t in self._against_end_to_end(own)]
        table = tables.tests_table("method_tests", tests, "Every two methods at every n")
        return Section(title, tuple(lines), tables=(table,))

    def _against_end_to_end(self, tests: Sequence[MethodTest]) -> list[MethodTest]:
        """At each n, the pre-trained method with the highest mean against training end to end."""
        plain = {m.name for m in self.study.methods if m.pretask == "none"}
        means = {(s.test_set, s.method, s.n): s.mean for s in self.scores}
        out = []
        for n in sorted({t.n for t in tests}):
            own = [t for t in tests if t.n == n and (t.first in plain) != (t.second in plain)]
            own = [t if t.first in plain else words.turned(t) for t in own]
            if own:
                out.append(max(own, key=lambda t: means[t.test_set, t.second, n]))
        return out

    def _remedies(self) -> Section | None:
        tests = compare_remedies(self.results, self.study)
        remedies = [m for m in self.study.methods if m.baseline]
        if not remedies:
            return None
        title = "Remedies against fragility on unseen data"
        if not tests:
            return Section(title, ("No remedy and its baseline were scored on the same persons yet.",))
        lines = [
            "Each remedy is compared with its baseline, trained from the same start on the same scans; on unseen data "
            "a gain is what is hoped for, on the target a loss is its price."
        ]
        for where in self.sets:
            own = [t for t in tests if t.test_set == where]
            if own:
                lines.append(words.shown_words(own, "comparison"))
                lines += [words.difference(t) for t in own if t.n in (own[0].n, max(t.n for t in own))]
        panels = {_titled(w): [t for t in tests if t.test_set == w] for w in self.sets}
        panels = {k: v for k, v in panels.items() if v}
        path = self.figures / "remedies.png"
        draw_remedies(panels, self.styles, path, heading="Remedies against their baseline", mark=self.mark)
        people = "; ".join(f"{k}, {words.persons_words(t.test.n for t in v)}" for k, v in panels.items())
        caption = (
            "Difference in mean IoU of each remedy to its baseline with its "
            f"{spread_caption(t.test.n for t in tests)} over persons ({people}; thick, or a stroke each) "
            "and 95% intervals over seeds (thin, cut at the edge)."
        )
        figure = self._figure("remedies", caption, "difference of each remedy to its baseline by n and test set")
        table = tables.tests_table("remedy_tests", tests, "Each remedy against its baseline at every n")
        return Section(title, tuple(lines), (figure,), (table,))

    def _worst(self) -> Section | None:
        failures = count_failures(self.results, self.study)
        lines = (*words.failure_words(failures), *words.hard_words(hardest_persons(self.results)))
        shown = [tables.worst_table(worst_cases(self.results))]
        if any(f.failures for f in failures):
            shown.append(tables.failures_table(failures))
        return Section("Worst cases and failures", lines, tables=tuple(shown))


def _titled(where: ScoredSet) -> str:
    return f"{where.role}: {where.name}"


def _spread(scores: Sequence[Score]) -> str:
    return spread_caption(s.interval.n for s in scores)


def _persons(scores: Sequence[Score]) -> str:
    return words.persons_words(s.interval.n for s in scores)


def _levels(scores: Sequence[Score]) -> list[float]:
    """Round IoUs up to the highest mean, rising: those for which it is worth asking how many scans they take."""
    highest, lowest = max(s.mean for s in scores), min(s.mean for s in scores)
    step = next((s for s in (0.1, 0.05, 0.02) if (highest - lowest) / s >= LEVELS), 0.01)
    top = math.floor(highest / step + 1e-9)
    return [round(i * step, 4) for i in range(top - LEVELS + 1, top + 1) if 0 < i * step < 1]
