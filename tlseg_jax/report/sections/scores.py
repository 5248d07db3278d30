"""Sections: scores by method and number of labelled scans, on the target and on unseen data, and how volumes agree."""

from collections.abc import Sequence

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.figures.agreement_figure import draw_agreement
from tlseg_jax.report.figures.sweep_figures import draw_boxes, draw_many, draw_means
from tlseg_jax.report.page.sections import ReportTable, Section
from tlseg_jax.report.stats.method_tests import compare_others
from tlseg_jax.report.stats.sweep_stats import ScoredSet, volume_agreement
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View, persons_of, spread_of
from tlseg_jax.report.words import study_words as words
from tlseg_jax.report.words.difference import difference, shown_words
from tlseg_jax.report.words.study_words import lines_caption, missing_words
from tlseg_jax.studies.results_table import Results


def target(results: Results, study: StudyInfo) -> Section:
    """Scores by method and n on the target's test set (Fig. 5 of Weatheritt et al. 2020)."""
    v = View(results, study)
    sets = v.of_role("target")
    title = "Target data by number of labelled scans"
    if not sets:
        return Section(title, ("No model was scored on the target's test set yet.",))
    lines, figures = [words.UNITS], []
    for where in sets:
        scores = v.scores_on(where)
        lines += words.best_words(scores)
        persons = persons_of(scores)
        if v.many:
            drawn = draw_many(scores, v.main, others=v.others_on([where]))
            caption = f"Mean IoU on {where.name} with its {spread_of(scores)} by method and n ({persons})."
        else:
            drawn = draw_boxes(scores, v.styles, others=v.others_on([where]))
            caption = (
                f"IoU of {persons} on {where.name}, averaged over seeds, by number of labelled scans; boxes in the "
                f"order {', '.join(m for m in v.main if any(s.method == m for s in scores))}. A box holds the "
                "middle half of the persons, its line is the median, whiskers reach the last person within 1.5 "
                "box heights."
            )
        caption += lines_caption(v.others_on([where]))
        heading = f"IoU on {where.name}"
        figures.append(v.save(drawn, f"iou_by_n_{where.name}", caption, f"{heading} by method and n", heading))
    table = tables.scores_table("target_scores", results, study, v.scores, sets)
    said, compared = _beside_others(v, sets, "target_others")
    return Section(title, (*lines, *said), tuple(figures), (table, *compared))


def unseen(results: Results, study: StudyInfo) -> Section:
    """The same on data of sources that no model was trained on (Fig. 6)."""
    v = View(results, study)
    sets = v.of_role("unseen")
    title = "Unseen data"
    if not sets:
        return Section(title, ("No data of another source were scored, so nothing is said of generalisation.",))
    lines = [line for where in sets for line in words.best_words(v.scores_on(where))]
    figures = []
    if v.many:
        for where in sets:
            scores, heading = v.scores_on(where), f"IoU on {where.name}"
            drawn = draw_many(scores, v.main, others=v.others_on([where]))
            caption = f"Mean IoU on {where.name} with its {spread_of(scores)} ({persons_of(scores)})."
            caption += lines_caption(v.others_on([where]))
            alt = f"mean {heading} by method and n"
            figures.append(v.save(drawn, f"unseen_by_n_{where.name}", caption, alt, heading))
    else:
        panels = {w.name: v.scores_on(w) for w in sets}
        drawn = draw_means(panels, v.styles, others=v.others_on(sets))
        heading = "Mean IoU on unseen data"
        caption = (
            "Mean IoU on data of a source that no model was trained on, with its "
            f"{spread_of([s for scores in panels.values() for s in scores])} ({v.people_on(sets)}). Methods "
            "are drawn side by side at each n."
        ) + lines_caption(v.others_on(sets))
        figures.append(v.save(drawn, "unseen_by_n", caption, f"m{heading[1:]} by method and n", heading))
    table = tables.scores_table("unseen_scores", results, study, v.scores, sets)
    said, compared = _beside_others(v, sets, "unseen_others")
    return Section(title, (*lines, *said), tuple(figures), (table, *compared))


def _beside_others(v: View, sets: Sequence[ScoredSet], name: str) -> tuple[list[str], tuple[ReportTable, ...]]:
    """The methods against others: in words each at the n of its highest mean, in a table at every n."""
    lines = missing_words(v.others_on(sets))
    tests = [t for t in compare_others(v.results, v.study) if t.test_set in sets]
    for where in sets:
        own = [t for t in tests if t.test_set == where]
        best = {s.method: s.n for s in sorted(v.scores_on(where), key=lambda s: s.mean)}
        if own:
            lines.append(f"Methods against others. {shown_words(own)}")
            lines += [difference(t) for t in own if t.n == best[t.second] and not v.many]
    return lines, (tables.tests_table(name, tests, "Each method at every n against others"),) if tests else ()


def volumes(results: Results, study: StudyInfo) -> Section | None:
    """Bias, limits of agreement and intraclass correlations on the target."""
    v = View(results, study)
    found = volume_agreement(results, study)
    if not found:
        return None
    lines = [
        "Volumes are what a trial measures. Limits of agreement (Bland & Altman 1999) hold 95% of the errors of "
        "single predictions; ICC(A,1) is the intraclass correlation of absolute agreement (McGraw & Wong 1996) of "
        "the persons' volumes, predicted ones averaged over the seeds."
    ]
    figures = []
    if not v.many:
        lines += [words.volume_words(v) for v in found]
        heading = "Agreement of volumes" + (f", {study.structure}" if study.structure else "")
        drawn = draw_agreement(found, v.styles)
        caption = (
            "Error of the predicted volume against the mean of both volumes, a point a person "
            f"({words.persons_words(len(v.points) for v in found)}, means over seeds), with bias and limits of "
            "agreement and their 95% intervals as bands; each method at its largest n."
        )
        figures.append(v.save(drawn, "volume_agreement", caption, "Bland-Altman panel of each method", heading))
    return Section("Volume agreement", tuple(lines), tuple(figures), (tables.volumes_table(found),))
