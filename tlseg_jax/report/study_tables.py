"""The tables of a sweep's scores; each is shown on the page and kept as CSV."""

from collections.abc import Mapping, Sequence

from tlseg_jax.report.page.sections import ReportTable, TableCell
from tlseg_jax.report.stats.agreement import Estimate
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS, spread_caption, values_text
from tlseg_jax.report.stats.learning_fit import LabelsNeeded, LearningCurve, NoCurve
from tlseg_jax.report.stats.method_tests import MethodTest
from tlseg_jax.report.stats.power import least_difference, median_of, over_persons, over_seeds, persons_needed
from tlseg_jax.report.stats.sweep_stats import Score, ScoredSet, VolumeAgreement, mean_scores, other_scores
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import FailureCount
from tlseg_jax.report.view import persons_of, spread_of
from tlseg_jax.report.words.power import HOW, by_n
from tlseg_jax.report.words.study_words import counted, persons_words
from tlseg_jax.studies.results_table import Measure, ResultRow, Results

PAPER_TABLE_2 = {"hdt_v": "0.983 (0.0149)", "hdt_wb": "0.940 (0.0010)", "mal_c": "0.837 (0.0942)"}
"""Mean (standard deviation) of Table 2, Weatheritt et al. 2020, by the data set's name here."""


def table_2(scores: Sequence[Score]) -> ReportTable:
    """IoU of the pre-trained models on their own test sets."""
    paper = any(s.test_set.name in PAPER_TABLE_2 for s in scores)
    columns: tuple[str, ...] = ("pre-task", "test set", "persons", "IoU mean", "IoU std", "low", "high", "each")
    rows: list[tuple[TableCell, ...]] = [
        (s.method, s.test_set.name, s.interval.n, _short(s.mean), _short(s.std), *_interval(s)) for s in scores
    ]
    caption = (
        "Mean and standard deviation of the IoU between persons on the pre-training tasks' own test sets "
        f"({persons_of(scores)}), with the mean's {spread_of(scores)}."
    )
    if paper:
        columns = (*columns, "paper, other scans")
        rows = [(*row, PAPER_TABLE_2.get(s.test_set.name)) for row, s in zip(rows, scores, strict=True)]
    return ReportTable("pretask_scores", caption, columns, tuple(rows))


_MEASURES: Mapping[Measure, str] = {"dice": "Dice", "hd95_mm": "HD95 [mm]", "asd_mm": "ASD [mm]"}


def scores_table(
    name: str, results: Results, study: StudyInfo, scores: Sequence[Score], sets: Sequence[ScoredSet]
) -> ReportTable:
    """Means by method and n on some test sets, with other measures where they were taken."""
    shown = [s for s in scores if s.test_set in sets]
    other = {m: {_key(s): s for s in mean_scores(results, study, m)} for m in _MEASURES}
    there = [m for m in _MEASURES if any(_key(s) in other[m] for s in shown)]
    distances = "hd95_mm" in there
    beside = [(o, o.score) for o in other_scores(results) if o.test_set in sets and o.score]
    dice = {(o.test_set, o.name): o.score for o in other_scores(results, "dice") if o.score}
    columns = (
        "test set",
        "method",
        "n",
        "persons",
        "seeds",
        "IoU mean",
        "low",
        "high",
        "each",
        "IoU std",
        *(_MEASURES[m] for m in there),
        *(["without a distance"] if distances else []),
        *(["lowest", "lowest person", "note"] if beside else []),
    )
    rows: list[tuple[TableCell, ...]] = []
    for s in shown:
        means = [other[m].get(_key(s)) for m in there]
        rows.append(
            (
                s.test_set.name,
                s.method,
                s.n,
                s.interval.n,
                s.seeds,
                _short(s.mean),
                *_interval(s),
                _short(s.std),
                *(_short(None if m is None else m.mean) for m in means),
                *([_without_distance(results, s)] if distances else []),
                *((*_lowest(s), None) if beside else []),
            )
        )
    for o, s in beside:
        of_other = {"dice": dice[o.test_set, o.name].mean}
        rows.append(
            (
                s.test_set.name,
                o.name,
                None,
                s.interval.n,
                None,
                _short(s.mean),
                *_interval(s),
                _short(s.std),
                *(_short(of_other.get(m)) for m in there),
                *([None] if distances else []),
                *_lowest(s),
                f"no n; {o.partly}" if o.partly else "no n",
            )
        )
    caption = (
        f"Mean IoU over {persons_of(shown)} with its {spread_of(shown)} and the standard deviation between persons"
        + (f"; means of {', '.join(_MEASURES[m] for m in there)}." if there else ".")
        + (
            " Distances are means over the persons where they exist; the last column counts the predictions that have "
            "none, as they or their reference are empty."
            if distances
            else ""
        )
    )
    return ReportTable(name, caption, columns, tuple(rows))


def _lowest(s: Score) -> tuple[float | None, str]:
    """The lowest IoU of a person, and who that is."""
    person = min(s.persons, key=lambda p: s.persons[p])
    return _short(s.persons[person]), person


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
    columns = (
        "measure",
        "test set",
        "n",
        "first",
        "second",
        unit,
        "difference",
        "low",
        "high",
        "each",
        "Wilcoxon p",
        "adjusted p",
        "comparisons",
        "t-test p",
        "d_z",
        "rank-biserial r",
        *(() if over_seeds else ("seeds", "seeds low", "seeds high")),
        "finding",
        "note",
    )
    rows = []
    for t in tests:
        low, high = t.seed_interval or (None, None)
        notes = [t.test.note] if t.test.note else []
        if t.left_out:
            notes.append(f"{counted(t.left_out, 'person')} scored with one of the two only")
        rows.append(
            (
                t.measure,
                t.test_set.name,
                t.n,
                t.first,
                t.second,
                t.test.n,
                _short(t.test.mean_difference),
                _short(t.test.low),
                _short(t.test.high),
                values_text(t.test) or None,
                _p(t.test.wilcoxon_p),
                _p(t.p),
                t.family,
                _p(t.test.t_p),
                _short(t.test.effect, 2),
                _short(t.test.rank_biserial, 2),
                *(() if over_seeds else (len(t.by_seed), _short(low), _short(high))),
                t.verdict,
                "; ".join(notes) or None,
            )
        )
    units = sorted({t.test.n for t in tests})
    over = f"{units[0]} {unit}" if len(units) == 1 else f"{units[0]} to {units[-1]} {unit}"
    caption = (
        f"{what}: mean difference, second minus first, over {over} with its "
        f"{spread_caption(t.test.n for t in tests)}; two-sided Wilcoxon signed-rank test, adjusted (Holm) over the "
        "comparisons of a measure and test set; paired t-test; d_z is Cohen's, r the matched-pairs rank-biserial "
        "correlation" + ("." if over_seeds else "; the 95% t-interval over the seeds' own differences.")
    )
    return ReportTable(name, caption, columns, tuple(rows))


def power_table(name: str, tests: Sequence[MethodTest]) -> ReportTable:
    """The least differences that the comparisons of each test set and n could have seen."""
    columns = (
        "test set",
        "n",
        "persons",
        "comparisons",
        "least adjusted p",
        "persons needed",
        "std of persons",
        "seen over persons",
        "seeds",
        "seen over seeds",
        "least difference",
    )
    rows = []
    for where in dict.fromkeys(t.test_set for t in tests):
        for n, own in by_n([t for t in tests if t.test_set == where]).items():
            most = max(own, key=lambda t: t.test.n)
            rows.append(
                (
                    where.name,
                    n,
                    most.test.n,
                    most.family,
                    _p(most.least_p),
                    persons_needed(most.family),
                    _short(median_of(t.test.std for t in own)),
                    _short(median_of(map(over_persons, own))),
                    len(most.by_seed),
                    _short(median_of(map(over_seeds, own))),
                    _short(median_of(map(least_difference, own))),
                )
            )
    caption = (
        f"What could be seen. {HOW} Each is a median over the comparisons at one n; there is none where the least p "
        "that so many persons can give is not below 0.05 after the adjustment."
    )
    return ReportTable(name, caption, columns, tuple(rows))


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
        low, high = (None, None) if bound else (_short(a.low), _short(a.high))
        rows.append(
            (where.name, method, fit.persons, tried, _short(a.value), low, high, _short(fit.b), _short(fit.c), note)
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
    columns = (
        "test set",
        "method",
        "n",
        "persons",
        "predictions",
        "bias [ml]",
        "bias low",
        "bias high",
        "lower limit [ml]",
        "lower low",
        "lower high",
        "upper limit [ml]",
        "upper low",
        "upper high",
        "ICC(A,1)",
        "A low",
        "A high",
        "ICC(C,1)",
        "C low",
        "C high",
    )
    rows = []
    for v in found:
        b, i = v.limits, v.icc
        estimates = [
            *((b.bias, b.lower, b.upper) if b else (None,) * 3),
            *((i.agreement, i.consistency) if i else (None,) * 2),
        ]
        cells = [cell for e in estimates for cell in _estimate(e)]
        rows.append((v.test_set.name, v.method, v.n, len(v.points), b.measurements if b else None, *cells))
    persons = persons_words(len(v.points) for v in found)
    caption = (
        f"Predicted against reference volumes at each method's largest n ({persons}): "
        "limits of agreement of a single prediction; intraclass correlations of the volumes averaged over seeds."
    )
    return ReportTable("volume_agreement", caption, columns, tuple(rows))


def worst_table(rows: Sequence[ResultRow], who: str) -> ReportTable:
    """The lowest single predictions, and of which method they are."""
    columns = (
        "test set",
        "person",
        "subject",
        "method",
        "n",
        "seed",
        "IoU",
        "Dice",
        "reference [ml]",
        "predicted [ml]",
        "cell",
    )
    return ReportTable(
        "worst_cases",
        f"The {counted(len(rows), 'single prediction')} of {who} with the lowest IoU, by test set.",
        columns,
        tuple(
            (
                r.test_set,
                r.person,
                r.subject,
                r.method,
                r.n,
                r.seed,
                _short(r.iou),
                _short(r.dice),
                _short(r.reference_ml, 2),
                _short(r.predicted_ml, 2),
                r.cell,
            )
            for r in rows
        ),
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


def _interval(s: Score) -> tuple[TableCell, TableCell, TableCell]:
    return _short(s.interval.low), _short(s.interval.high), values_text(s.interval) or None


def _estimate(e: Estimate | None) -> tuple[TableCell, TableCell, TableCell]:
    return (None, None, None) if e is None else (_short(e.value, 3), _short(e.low, 3), _short(e.high, 3))


def _short(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def _p(p: float | None) -> float | None:
    return None if p is None else float(f"{p:.3g}")
