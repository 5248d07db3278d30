"""Section: the answer to how many scans must be labelled, and what to start from."""

from tlseg_jax.report.figures.sweep_figures import draw_many, draw_means
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.sections.structures import of_best_table
from tlseg_jax.report.stats.method_tests import compare_labels, compare_methods
from tlseg_jax.report.stats.sweep_stats import over_structures
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View, spread_of, titled
from tlseg_jax.report.words.answer import elsewhere_words, enough_words, start_words
from tlseg_jax.report.words.study_words import lines_caption
from tlseg_jax.studies.results_table import Results

READ = (
    " IoU is the overlap with the reference, 0 (none) to 1 (the same); n counts labelled scans, seeds are repeated "
    "trainings. A difference is only claimed where a test between methods, its interval and the seeds agree."
)
"""What a reader of the first page must know of its words."""


def answer(results: Results, study: StudyInfo) -> Section | None:
    """What to start from, how many to label and what to distrust, in a sentence each, and a figure.

    Of several structures it is said of their mean, and a table has each.
    """
    each, count = results, len(results.structures)
    if count > 1:
        results = over_structures(each)
    v = View(results, study)
    sets = v.of_role("target")
    if not sets or study.has_factors or v.best is None:
        return None
    where, (method, n) = sets[0], v.best
    own = [s for s in v.scores if s.method == method]
    (best,) = (s for s in own if (s.test_set, s.n) == (where, n))
    lines = (
        start_words(v.scores_on(where), compare_methods(results, study), study, count),
        enough_words(method, compare_labels(results, method), [s for s in own if s.test_set == where]),
        elsewhere_words(best, [s for s in own if s.test_set.role == "unseen" and s.n == n]),
    )
    heading, shown = "IoU by number of labelled scans", (sets[:1] if v.many else v.sets)
    if v.many:
        drawn = draw_many(v.scores_on(where), v.main, others=v.others_on([where]))
    else:
        panels = {titled(w): v.scores_on(w) for w in shown}
        drawn = draw_means(panels, v.styles, others=v.others_on(shown))
    spread = spread_of([s for w in shown for s in v.scores_on(w)])
    caption = f"Mean IoU by method and number of labelled scans with its {spread} ({v.people_on(shown)})."
    caption += lines_caption(v.others_on(shown)) + READ
    figure = v.save(drawn, "answer", caption, "mean IoU by number of labelled scans and method", heading)
    tables = (of_best_table(each, study, v.best),) if count > 1 else ()
    return Section("How many scans to label, and what to start from", lines, (figure,), tables)
