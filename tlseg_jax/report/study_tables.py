"""The tables of a sweep's scores; each is shown on the page and kept as CSV."""

from collections.abc import Callable, Mapping, Sequence

from tlseg_jax.report.page.sections import ReportTable, TableCell, rounded, significant, table_of
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS, spread_caption, values_text
from tlseg_jax.report.stats.learning_fit import LabelsNeeded, LearningCurve, NoCurve
from tlseg_jax.report.stats.method_tests import MethodTest
from tlseg_jax.report.stats.power import least_difference, median_of, over_persons, over_seeds, persons_needed
from tlseg_jax.report.stats.sweep_stats import Score, ScoredSet, VolumeAgreement, mean_scores, other_scores
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import FailureCount
from tlseg_jax.report.view import persons_of, spread_of
from tlseg_jax.report.words.difference import HOW, by_n
from tlseg_jax.report.words.study_words import counted, persons_words
from tlseg_jax.studies.results_table import Measure, ResultRow, Results

PAPER_TABLE_2 = {"hdt_v": "0.983 (0.0149)", "hdt_wb": "0.940 (0.0010)", "mal_c": "0.837 (0.0942)"}
"""Mean (standard deviation) of Table 2, Weatheritt et al. 2020, by the data set's name here."""


_SPREAD: Mapping[str, Callable[[Score], TableCell]] = {
    "low": lambda s: rounded(s.interval.low),
    "high": lambda s: rounded(s.interval.high),
    "each": lambda s: values_text(s.interval) or None,
}


def table_2(scores: Sequence[Score]) -> ReportTable:
    """IoU of the pre-trained models on their own test sets."""
    columns: dict[str, Callable[[Score], TableCell]] = {
        "pre-task": lambda s: s.method,
        "test set": lambda s: s.test_set.name,
        "persons": lambda s: s.interval.n,
        "IoU mean": lambda s: rounded(s.mean),
        "IoU std": lambda s: rounded(s.std),
        **_SPREAD,
    }
    if any(s.test_set.name in PAPER_TABLE_2 for s in scores):
        columns["paper, other scans"] = lambda s: PAPER_TABLE_2.get(s.test_set.name)
    caption = (
        "Mean and standard deviation of the IoU between persons on the pre-training tasks' own test sets "
        f"({persons_of(scores)}), with the mean's {spread_of(scores)}."
    )
    return table_of("pretask_scores", caption, scores, columns)


_MEASURES: Mapping[Measure, str] = {"dice": "Dice", "hd95_mm": "HD95 [mm]", "asd_mm": "ASD [mm]"}


def scores_table(
    name: str, results: Results, study: StudyInfo, scores: Sequence[Score], sets: Sequence[ScoredSet]
) -> ReportTable:
    """Means by method and n on some test sets, with other measures where they were taken, and others below them."""
    shown = [s for s in scores if s.test_set in sets]
    others = [o for o in other_scores(results) if o.test_set in sets]
    partly = {_key(o.score): o.partly for o in others if o.score}
    measured = {m: {_key(s): s.mean for s in mean_scores(results, study, m)} for m in _MEASURES}
    there = [m for m in _MEASURES if any(_key(s) in measured[m] for s in shown)]
    measured["dice"] |= {_key(o.score): o.score.mean for o in other_scores(results, "dice") if o.score}

    def mean_of(measure: Measure) -> Callable[[Score], TableCell]:
        return lambda s: rounded(measured[measure].get(_key(s)))

    def note(s: Score) -> str | None:
        said = partly.get(_key(s))
        return None if said is None else f"no n; {said}" if said else "no n"

    columns: dict[str, Callable[[Score], TableCell]] = {
        "test set": lambda s: s.test_set.name,
        "method": lambda s: s.method,
        "n": lambda s: s.n or None,
        "persons": lambda s: s.interval.n,
        "seeds": lambda s: s.seeds or None,
        "IoU mean": lambda s: rounded(s.mean),
        **_SPREAD,
        "IoU std": lambda s: rounded(s.std),
        **{_MEASURES[m]: mean_of(m) for m in there},
    }
    caption = (
        f"Mean IoU over {persons_of(shown)} with its {spread_of(shown)} and the standard deviation between persons"
    )
    caption += f"; means of {', '.join(_MEASURES[m] for m in there)}." if there else "."
    if "hd95_mm" in there:
        columns["without a distance"] = lambda s: _without_distance(results, s)
        caption += (
            " Distances are means over the persons where they exist; the last column counts the predictions that have "
            "none, as they or their reference are empty."
        )
    if partly:
        columns |= {"lowest": lambda s: rounded(s.persons[_lowest(s)]), "lowest person": _lowest, "note": note}
    return table_of(name, caption, [*shown, *(o.score for o in others if o.score)], columns)


def _lowest(s: Score) -> str:
    """The person with the lowest IoU."""
    return min(s.persons, key=lambda p: s.persons[p])


def _without_distance(results: Results, s: Score) -> int | None:
    """Predictions whose HD95 is not defined; None where none was measured."""
    own = results.where(role=s.test_set.role, test_set=s.test_set.name, method=s.method, n=s.n)
    measured = {r.cell for r in own if r.hd95_mm is not None}
    undefined = [r for r in own if r.hd95_mm is None and (r.cell in measured or r.iou == 0)]
    return len(undefined) if measured else None


def tests_table(name: str, tests: Sequence[MethodTest], what: str) -> ReportTable:
    """Paired tests: the second method minus the first; of scores, or of runs where the units are seeds."""
    over_seeds = tests[0].unit == "seed"
    unit = tests[0].unit + "s"

    def seeds_end(end: int) -> Callable[[MethodTest], TableCell]:
        return lambda t: rounded(t.seed_interval[end]) if t.seed_interval else None

    def note(t: MethodTest) -> str | None:
        alone = f"{counted(t.left_out, 'person')} scored with one of the two only" if t.left_out else ""
        return "; ".join(filter(None, (t.test.note, alone))) or None

    by_seed: dict[str, Callable[[MethodTest], TableCell]] = {
        "seeds": lambda t: len(t.by_seed),
        "seeds low": seeds_end(0),
        "seeds high": seeds_end(1),
    }
    columns: dict[str, Callable[[MethodTest], TableCell]] = {
        "measure": lambda t: t.measure,
        "test set": lambda t: t.test_set.name,
        "n": lambda t: t.n,
        "first": lambda t: t.first,
        "second": lambda t: t.second,
        unit: lambda t: t.test.n,
        "difference": lambda t: rounded(t.test.mean_difference),
        "low": lambda t: rounded(t.test.low),
        "high": lambda t: rounded(t.test.high),
        "each": lambda t: values_text(t.test) or None,
        "Wilcoxon p": lambda t: significant(t.test.wilcoxon_p),
        "adjusted p": lambda t: significant(t.p),
        "comparisons": lambda t: t.family,
        "t-test p": lambda t: significant(t.test.t_p),
        "d_z": lambda t: rounded(t.test.effect, 2),
        "rank-biserial r": lambda t: rounded(t.test.rank_biserial, 2),
        **({} if over_seeds else by_seed),
        "finding": lambda t: t.verdict,
        "note": note,
    }
    units = sorted({t.test.n for t in tests})
    over = f"{units[0]} {unit}" if len(units) == 1 else f"{units[0]} to {units[-1]} {unit}"
    caption = (
        f"{what}: mean difference, second minus first, over {over} with its "
        f"{spread_caption(t.test.n for t in tests)}; two-sided Wilcoxon signed-rank test, adjusted (Holm) over the "
        "comparisons of a measure and test set; paired t-test; d_z is Cohen's, r the matched-pairs rank-biserial "
        "correlation" + ("." if over_seeds else "; the 95% t-interval over the seeds' own differences.")
    )
    return table_of(name, caption, tests, columns)


def power_table(name: str, tests: Sequence[MethodTest]) -> ReportTable:
    """The least differences that the comparisons of each test set and n could have seen."""
    sets = dict.fromkeys(t.test_set for t in tests)
    alike = [own for where in sets for own in by_n([t for t in tests if t.test_set == where]).values()]

    def most(own: Sequence[MethodTest]) -> MethodTest:
        return max(own, key=lambda t: t.test.n)

    caption = (
        f"What could be seen. {HOW} Each is a median over the comparisons at one n; there is none where the least p "
        "that so many persons can give is not below 0.05 after the adjustment."
    )
    return table_of(
        name,
        caption,
        alike,
        {
            "test set": lambda own: own[0].test_set.name,
            "n": lambda own: own[0].n,
            "persons": lambda own: most(own).test.n,
            "comparisons": lambda own: most(own).family,
            "least adjusted p": lambda own: significant(most(own).least_p),
            "persons needed": lambda own: persons_needed(most(own).family),
            "std of persons": lambda own: rounded(median_of(t.test.std for t in own)),
            "seen over persons": lambda own: rounded(median_of(map(over_persons, own))),
            "seeds": lambda own: len(most(own).by_seed),
            "seen over seeds": lambda own: rounded(median_of(map(over_seeds, own))),
            "least difference": lambda own: rounded(median_of(map(least_difference, own))),
        },
    )


def curves_table(fits: Mapping[tuple[ScoredSet, str], LearningCurve | NoCurve]) -> ReportTable:
    """The fitted curves IoU(n) = a - b n^-c."""
    rows: list[tuple[TableCell, ...]] = []
    for (where, method), fit in fits.items():
        if isinstance(fit, NoCurve):
            rows.append((where.name, method, None, None, None, None, None, None, None, f"no fit: {fit.reason}"))
            continue
        a = fit.plateau
        tried = ", ".join(map(str, fit.n))
        bound = fit.a >= 1
        note = "a is at its bound of 1: the scores do not level off, the plateau is not known" if bound else None
        low, high = (None, None) if bound else (rounded(a.low), rounded(a.high))
        rows.append(
            (where.name, method, fit.persons, tried, rounded(a.value), low, high, rounded(fit.b), rounded(fit.c), note)
        )
    persons = persons_words(fit.persons for fit in fits.values() if isinstance(fit, LearningCurve))
    return ReportTable(
        "learning_curves",
        f"Fits of IoU(n) = a - b n^-c to the means over {persons}; a is the IoU of endless data by the fit, with its "
        f"95% interval where there are {LEAST_UNITS} persons or more.",
        ("test set", "method", "persons", "n", "a", "a low", "a high", "b", "c", "note"),
        tuple(rows),
    )


def labels_table(found: Sequence[tuple[ScoredSet, str, LearningCurve, LabelsNeeded]]) -> ReportTable:
    """Labelled scans for a wanted IoU."""
    rows = tuple(
        (where.name, method, needed.level, needed.words, needed.interval or None, curve.persons)
        for where, method, curve, needed in found
    )
    persons = persons_words(curve.persons for _, _, curve, _ in found)
    return ReportTable(
        "labels_needed",
        f"Labelled scans at which the fitted curve reaches an IoU, with the 95% interval over {persons} (from "
        f"{LEAST_UNITS} on); nothing is claimed beyond the numbers tried.",
        ("test set", "method", "IoU", "labelled scans", "95% interval", "persons"),
        rows,
    )


def volumes_table(found: Sequence[VolumeAgreement]) -> ReportTable:
    """Bias, limits of agreement and intraclass correlations of the volumes."""
    estimates = {"bias [ml]": "bias", "lower limit [ml]": "lower", "upper limit [ml]": "upper"}
    estimates |= {"ICC(A,1)": "A", "ICC(C,1)": "C"}
    ends = (column for name, short in estimates.items() for column in (name, f"{short} low", f"{short} high"))
    rows = []
    for v in found:
        b, i = v.limits, v.icc
        each = [
            *((b.bias, b.lower, b.upper) if b else (None,) * 3),
            *((i.agreement, i.consistency) if i else (None,) * 2),
        ]
        cells = (rounded(x, 3) for e in each for x in ((e.value, e.low, e.high) if e else (None,) * 3))
        rows.append((v.test_set.name, v.method, v.n, len(v.points), b.measurements if b else None, *cells))
    caption = (
        f"Predicted against reference volumes at each method's largest n "
        f"({persons_words(len(v.points) for v in found)}): "
        "limits of agreement of a single prediction; intraclass correlations of the volumes averaged over seeds."
    )
    columns = ("test set", "method", "n", "persons", "predictions", *ends)
    return ReportTable("volume_agreement", caption, columns, tuple(rows))


def worst_table(rows: Sequence[ResultRow], who: str) -> ReportTable:
    """The lowest single predictions, and of which method they are."""
    return table_of(
        "worst_cases",
        f"The {counted(len(rows), 'single prediction')} of {who} with the lowest IoU, by test set.",
        rows,
        {
            "test set": lambda r: r.test_set,
            "person": lambda r: r.person,
            "subject": lambda r: r.subject,
            "method": lambda r: r.method,
            "n": lambda r: r.n,
            "seed": lambda r: r.seed,
            "IoU": lambda r: rounded(r.iou),
            "Dice": lambda r: rounded(r.dice),
            "reference [ml]": lambda r: rounded(r.reference_ml, 2),
            "predicted [ml]": lambda r: rounded(r.predicted_ml, 2),
            "cell": lambda r: r.cell,
        },
    )


def failures_table(failures: Sequence[FailureCount]) -> ReportTable:
    """How often each method missed the structure; only where it did."""
    shown = [f for f in failures if f.failures]
    rows = tuple(
        (f.test_set.name, f.method, f.n, f.failures, f.empty, f.predictions, ", ".join(f.persons)) for f in shown
    )
    return ReportTable(
        "failures",
        "Predictions (a scan in a run) of all methods with an IoU below 0.1, where there are any: "
        f"{sum(f.failures for f in failures)} of {sum(f.predictions for f in failures)} in all.",
        ("test set", "method", "n", "IoU below 0.1", "nothing predicted", "predictions", "persons"),
        rows,
    )


def _key(s: Score) -> tuple[ScoredSet, str, int]:
    return s.test_set, s.method, s.n
