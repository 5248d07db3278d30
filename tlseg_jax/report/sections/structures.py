"""Section: the structures of a study with several, side by side."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from tlseg_jax.report.page.sections import ReportTable, Section, TableCell
from tlseg_jax.report.stats.compare_stats import LEAST_UNITS
from tlseg_jax.report.stats.sweep_stats import (
    Score,
    ScoredSet,
    grouped,
    mean_name,
    mean_scores,
    other_scores,
    over_structures,
)
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.sweep_cases import FAILURE, best_method, count_failures
from tlseg_jax.report.view import View
from tlseg_jax.report.words.study_words import counted, missing_words
from tlseg_jax.studies.results_table import Results

_Places = Mapping[ScoredSet, tuple[str, str]]
"""Test set -> its data set and structure."""

_Cell = tuple[ScoredSet, str, int, TableCell]


def structures(results: Results, study: StudyInfo) -> Section:
    """Mean IoU of each structure by method and n, and how often each was missed."""
    v = View(results, study)
    places = {ScoredSet(r.role, r.test_set): (r.data_set, r.structure) for r in results}
    data_sets = tuple(dict.fromkeys(places[w][0] for w in v.sets))
    means = {d: f"mean of {sum(places[w][0] == d for w in v.sets)}" for d in data_sets}
    over = over_structures(results)
    of_means = [s for s in mean_scores(over, study) if s.method]
    places |= {s.test_set: (d, means[d]) for d in data_sets for s in of_means if s.test_set.name == mean_name(d)}
    lines = ["A scan's scores are averaged over its structures first, then over scans and persons."]
    for d in data_sets:
        there = sum(places[w][0] == d for w in v.sets)
        lines.append(f"{mean_name(d)} is the mean over {counted(there, 'structure')} of {d}.{_partly(results, d)}")
        lines[-1] += _extremes([s for s in v.scores if places[s.test_set][0] == d], places)
    columns = ("data set", "structure", "n", *v.order)
    scores = sorted((*v.scores, *of_means), key=lambda s: data_sets.index(places[s.test_set][0]))
    cells: list[_Cell] = [(s.test_set, s.method, s.n, round(s.mean, 4)) for s in scores]
    others = [o for o in (*other_scores(results), *other_scores(over)) if o.score]
    names = tuple(dict.fromkeys(o.name for o in others))
    at = dict.fromkeys((s.test_set, s.n) for s in scores)
    cells += [(w, o.name, n, round(o.score.mean, 4)) for w, n in at for o in others if o.test_set == w and o.score]
    rows = _by_method(cells, places, (*v.order, *names))
    lines += missing_words(others)
    caption = "Mean IoU over persons by structure, n and method."
    caption += f" {', '.join(names)}: without n, so the same at each." if names else ""
    tables = [ReportTable("structures", caption, (*columns, *names), rows)]
    failures = count_failures(results, study)
    lines.append(
        f"{sum(f.failures for f in failures)} of {counted(sum(f.predictions for f in failures), 'prediction')} (a "
        f"structure of a scan in a run) had an IoU below {FAILURE:g}."
    )
    missed = _by_method(((f.test_set, f.method, f.n, f.failures) for f in failures), places, v.order)
    if missed := tuple(r for r in missed if any(r[3:])):
        caption = f"Predictions with an IoU below {FAILURE:g}, where there are any."
        tables.append(ReportTable("structure_failures", caption, columns, missed))
    return Section("Structures side by side", tuple(lines), tables=tuple(tables))


def _by_method(cells: Iterable[_Cell], places: _Places, methods: Sequence[str]) -> tuple[tuple[TableCell, ...], ...]:
    """A row a test set and n, with a column a method."""
    rows: dict[tuple[ScoredSet, int], dict[str, TableCell]] = {}
    for where, method, n, value in cells:
        rows.setdefault((where, n), {})[method] = value
    return tuple((*places[where], n, *(own.get(m) for m in methods)) for (where, n), own in rows.items())


def of_best_table(results: Results, study: StudyInfo, best: tuple[str, int]) -> ReportTable:
    """The method and n that the answer names, by structure: on the target, and its mean on unseen data."""
    (method, n), main = best, View(results, study).of_main
    own = results.where(method=method, n=n)
    places = {r.test_set: (r.data_set, r.structure) for r in own}
    scores = {(*places[s.test_set.name], s.test_set.role): s for s in mean_scores(own, study)}
    unseen = tuple(dict.fromkeys(data_set for data_set, _, role in scores if role == "unseen"))
    rows: list[tuple[TableCell, ...]] = []
    for structure, s in ((structure, s) for (_, structure, role), s in scores.items() if role == "target"):
        i, highest = s.interval, best_method(main.where(structure=structure))
        ends = (min(i.values), max(i.values)) if i.low is None or i.high is None else (i.low, i.high)
        beside = [scores.get((u, structure, "unseen")) for u in unseen]
        cells = [round(x, 4) for x in (s.mean, *ends)]
        elsewhere = [None if b is None else round(b.mean, 4) for b in beside]
        rows.append((structure, *cells, i.n, highest and highest[0], *elsewhere))
    columns = ("structure", "IoU mean", "low", "high", "persons", "highest", *(f"IoU on {u}" for u in unseen))
    caption = (
        f"{method} with n = {n} on {study.task} by structure: mean IoU over persons; low and high are its 95% interval "
        f"or, of fewer than {LEAST_UNITS} persons, the lowest and the highest of them. Beside it the method with the "
        f"highest mean there{', and the mean on data of another source' if unseen else ''}."
    )
    return ReportTable("answer", caption, columns, tuple(rows))


def _extremes(scores: Sequence[Score], places: _Places) -> str:
    """Which structures the best method at the largest n has the highest and the lowest mean of."""
    n = max(s.n for s in scores)
    by_method: dict[str, list[Score]] = {}
    for s in scores:
        if s.n == n:
            by_method.setdefault(s.method, []).append(s)
    method, own = max(by_method.items(), key=lambda m: statistics.fmean(s.mean for s in m[1]))
    if len(own) < 2:
        return ""
    words = [f"{places[s.test_set][1]} ({s.mean:.3f})" for f in (max, min) for s in [f(own, key=lambda s: s.mean)]]
    return f" With n = {n}, {method}'s highest mean was of {words[0]} and its lowest of {words[1]}."


def _partly(results: Results, data_set: str) -> str:
    """Says where scans mark fewer structures than others."""
    scans = grouped((r for r in results if r.method and r.data_set == data_set), lambda r: r.subject)
    sizes = [len({r.structure for r in rows}) for rows in scans.values()]
    less = sum(s < max(sizes) for s in sizes)
    return f" {less} of {counted(len(sizes), 'scan')} mark fewer, and theirs is the mean over those." if less else ""
