"""Section: paired tests between the methods."""

from collections.abc import Sequence

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.stats.method_tests import MethodTest, compare_methods
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View
from tlseg_jax.report.words.difference import difference, seen_words, shown_words
from tlseg_jax.studies.results_table import Results


def method_tests(results: Results, study: StudyInfo) -> Section | None:
    """Every two methods at every n, on each test set."""
    v = View(results, study)
    tests = compare_methods(results, study)
    title = "Paired tests between methods"
    if not tests:
        if study.has_factors:
            return None  # the levels of the factors are compared by a model of their own
        return Section(title, ("There are not two methods that were scored on the same persons.",))
    lines = [
        "A difference is called shown only where the adjusted p is below 0.05 and both intervals, over persons "
        "(where there are enough for one) and over seeds, are without 0; of a single seed it holds for that run "
        "alone."
    ]
    for where in v.sets:
        own = [t for t in tests if t.test_set == where]
        if own:
            lines += [shown_words(own), seen_words(own)]
            lines += [difference(t) for t in _against_end_to_end(v, own)]
    table = tables.tests_table("method_tests", tests, "Every two methods at every n")
    return Section(title, tuple(lines), tables=(tables.power_table("method_power", tests), table))


def _against_end_to_end(v: View, tests: Sequence[MethodTest]) -> list[MethodTest]:
    """At each n, the pre-trained method with the highest mean against training end to end."""
    plain = {m.name for m in v.study.methods if m.pretask == "none"}
    means = {(s.test_set, s.method, s.n): s.mean for s in v.scores}
    out = []
    for n in sorted({t.n for t in tests}):
        own = [t for t in tests if t.n == n and (t.first in plain) != (t.second in plain)]
        own = [t if t.first in plain else t.turned() for t in own]
        if own:
            out.append(max(own, key=lambda t: means[t.test_set, t.second, n]))
    return out
