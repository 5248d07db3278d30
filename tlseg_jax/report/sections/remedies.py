"""Section: what remedies against fragility on unseen data do."""

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.figures.effect_figures import draw_remedies
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.stats.compare_stats import spread_caption
from tlseg_jax.report.stats.method_tests import compare_remedies
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View, titled
from tlseg_jax.report.words.difference import seen_words, shown_words, verdict_words
from tlseg_jax.report.words.study_words import persons_words
from tlseg_jax.studies.results_table import Results


def remedies(results: Results, study: StudyInfo) -> Section | None:
    """Each remedy against the method that it changes."""
    v = View(results, study)
    tests = compare_remedies(results, study)
    remedies = [m for m in study.methods if m.baseline]
    if not remedies:
        return None
    title = "Remedies against fragility on unseen data"
    if not tests:
        return Section(title, ("No remedy and its baseline were scored on the same persons yet.",))
    lines = [
        "Each remedy is compared with its baseline, trained from the same start on the same scans; on unseen data "
        "a gain is what is hoped for, on the target a loss is its price."
    ]
    for where in v.sets:
        own = [t for t in tests if t.test_set == where]
        if own:
            lines += [shown_words(own), seen_words(own), *verdict_words(own)]
    panels = {titled(w): [t for t in tests if t.test_set == w] for w in v.sets}
    panels = {k: v for k, v in panels.items() if v}
    people = "; ".join(f"{k}, {persons_words(t.test.n for t in v)}" for k, v in panels.items())
    caption = (
        "Difference in mean IoU of each remedy to its baseline with its "
        f"{spread_caption(t.test.n for t in tests)} over persons ({people}; thick, or a stroke each) "
        "and 95% intervals over seeds (thin, cut at the edge)."
    )
    alt, heading = "difference of each remedy to its baseline by n and test set", "Remedies against their baseline"
    figure = v.save(draw_remedies(panels, v.styles), "remedies", caption, alt, heading)
    table = tables.tests_table("remedy_tests", tests, "Each remedy against its baseline at every n")
    return Section(title, tuple(lines), (figure,), (tables.power_table("remedy_power", tests), table))
