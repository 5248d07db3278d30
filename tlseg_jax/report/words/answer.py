"""The answer to what a study was made for, in three paragraphs for who will do the labelling."""

import dataclasses
from collections.abc import Iterable, Sequence

from tlseg_jax.report.stats.compare_stats import spread_words
from tlseg_jax.report.stats.method_tests import MethodTest
from tlseg_jax.report.stats.power import least_difference, persons_needed
from tlseg_jax.report.stats.sweep_stats import Score
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.words.difference import numbers, why_open
from tlseg_jax.report.words.power import none_words
from tlseg_jax.report.words.study_words import counted, score_words


def start_words(scores: Sequence[Score], tests: Sequence[MethodTest], study: StudyInfo) -> str:
    """What to start from with the fewest and with the most labelled scans that were tried on a test set."""
    tried = sorted({s.n for s in scores})
    lines = [_start([s for s in scores if s.n == n], tests, study) for n in dict.fromkeys((tried[0], tried[-1]))]
    return f"**What to start from.** {' '.join(lines)}"


def _start(scores: Sequence[Score], tests: Sequence[MethodTest], study: StudyInfo) -> str:
    best = max(scores, key=lambda s: s.mean)
    n, name = f"With {counted(best.n, 'labelled scan')}", started(best.method, study)
    mean = f"its mean IoU on {best.test_set.name} was {_score(best)}"
    if len(scores) < 2:
        return f"{n} only {name} was tried: {mean}."
    own = [t for t in tests if (t.test_set, t.n) == (best.test_set, best.n) and best.method in (t.first, t.second)]
    own = sorted((t if t.second == best.method else t.turned() for t in own), key=_difference)
    below = [t for t in own if t.verdict == "higher"]
    rest = [t for t in own if t.verdict != "higher"]
    if below and not rest:
        others = f"than {below[0].first}" if len(below) == 1 else f"than all others, {below[0].first} the nearest"
        return f"{n} start from {name}: {mean}, higher {others} ({_numbers(below[0])})."
    head = f"{n} the highest was {name}: {mean}"
    if not rest:
        return f"{head}; no other start was scored on the same persons."
    of = f", higher than {_names(t.first for t in below)}" if below else ""
    nearest = f", the nearest {rest[0].first}" if len(rest) > 1 else ""
    return (
        f"{head}{of}. **It cannot be told apart** from {_names(t.first for t in rest)}{nearest} "
        f"({_numbers(rest[0])}): {_open(rest[0])}."
    )


def enough_words(method: str, tests: Sequence[MethodTest], scores: Sequence[Score]) -> str:
    """From which number of labelled scans on more gained no more than could be seen, of one method.

    Args:
      method: whose.
      tests: of `compare_labels`, each smaller n against the largest, rising.
      scores: the method's on the same test set, at every n.
    """
    head = "**How many to label.** "
    tried = sorted(scores, key=lambda s: s.n)
    low, high = tried[0], tried[-1]
    rise = f"from {_score(low)} with n = {low.n} to {_score(high)} with n = {high.n}"
    if len(tried) < 2:
        return (
            f"{head}{method} was tried with n = {low.n} alone, {_score(low)}: nothing is said of more or fewer labels."
        )
    if not tests:
        return f"{head}{method}'s mean IoU went {rise}, but on no person with both."
    most = tests[-1].second
    if all(t.test.n < persons_needed(t.family) for t in tests):
        return f"{head}{method}'s mean IoU went {rise}; what is enough cannot be told: {none_words(tests[0])}."
    shown = [i for i, t in enumerate(tests) if t.verdict == "higher"]
    first = shown[-1] + 1 if shown else 0
    gained = f" With {tests[first - 1].first} it was lower ({_numbers(tests[first - 1])})." if shown else ""
    if first == len(tests):
        return (
            f"{head}{method} still gained at the last step that was tried, from {tests[-1].first} to {most} "
            f"({_numbers(tests[-1])}): more labels than were tried may gain more."
        )
    t = tests[first]
    return (
        f"{head}From {t.first} on, more labels gained {method} no more than could be seen: {most} against {t.first} "
        f"({_numbers(t)}): {_open(t)}.{gained}"
    )


def elsewhere_words(on_target: Score, unseen: Sequence[Score]) -> str:
    """How one method at one n does on data of another source, and on the worst person of each set."""
    who, here = f"With n = {on_target.n}, {on_target.method}'s", on_target.test_set.name
    if not unseen:
        return (
            f"**What to distrust.** {who} mean IoU on {here} was {_score(on_target)}, {_worst(on_target)}. No data of "
            "another source were scored, so nothing is said of other scanners or hospitals."
        )
    each = "; ".join(f"{_score(s)} on {s.test_set.name}, {_worst(s)}" for s in unseen)
    return (
        f"**What to distrust.** {who} mean IoU on data of a source that no model was trained on was {each}. On {here} "
        f"it was {_score(on_target)}, {_worst(on_target)}."
    )


def started(method: str, study: StudyInfo) -> str:
    """A method as a start: what the network has seen before."""
    found = study.method(method)
    if found is None:
        return method
    return f"{method} (no pre-training)" if found.pretask == "none" else f"{method} (pre-trained on {found.pretask})"


def _worst(s: Score) -> str:
    person = min(s.persons, key=lambda p: s.persons[p])
    return f"lowest person {person} ({s.persons[person]:.3f}, the mean of {counted(s.seeds, 'seed')})"


def _open(t: MethodTest) -> str:
    """Why a comparison shows nothing, and what it would have missed."""
    if t.test.n < persons_needed(t.family):
        return none_words(t)
    least = least_difference(t)
    missed = "" if least is None else f"; a difference below {least:.3f} would likely have gone unseen"
    return why_open(t.test, t.unit, t.p, t.least_p, t.family) + missed


def _score(s: Score) -> str:
    """In a line for reading: without the single values that stand for an interval in the tables and the figure."""
    return score_words(dataclasses.replace(s, interval=dataclasses.replace(s.interval, values=())))


def _numbers(t: MethodTest) -> str:
    """The difference with its interval over persons; that over seeds and p are in the section of the tests."""
    if t.test.mean_difference is None:
        return numbers(t)
    interval = spread_words(t.test, "+.3f") if t.test.low is not None else ""
    parts = (f"{t.test.mean_difference:+.3f}", interval, counted(t.test.n, t.unit), counted(len(t.by_seed), "seed"))
    return ", ".join(p for p in parts if p)


def _difference(t: MethodTest) -> float:
    return t.test.mean_difference or 0.0


def _names(names: Iterable[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last
