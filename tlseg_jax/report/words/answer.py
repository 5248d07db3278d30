"""The answer to what a study was made for, in three sentences for who will do the labelling."""

from collections.abc import Iterable, Sequence

from tlseg_jax.report.stats.compare_stats import Interval, PairedTest, spread_words
from tlseg_jax.report.stats.method_tests import MethodTest
from tlseg_jax.report.stats.power import least_difference, persons_needed
from tlseg_jax.report.stats.sweep_stats import Score
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.words.difference import none_words, numbers, why_open
from tlseg_jax.report.words.study_words import counted


def start_words(scores: Sequence[Score], tests: Sequence[MethodTest], study: StudyInfo, structures: int = 1) -> str:
    """What to start from with the most and with the fewest labelled scans that were tried on a test set.

    Args:
      scores: of the test set, means over so many structures.
      tests: of `compare_methods`.
    """
    tried = sorted({s.n for s in scores})
    most, few = (max((s for s in scores if s.n == n), key=lambda s: s.mean) for n in (tried[-1], tried[0]))
    n, name = f"**What to start from.** With {counted(most.n, 'labelled scan')}", started(most.method, study)
    over = f", over {structures} structures," if structures > 1 else ""
    mean = f"its mean IoU on {most.test_set.name}{over} was {_score(most)}"
    below, rest = _others(most, tests)
    if not below and not rest:
        alone = sum(s.n == most.n for s in scores) == 1
        said = f"{n} only {name} was tried: {mean}" if alone else f"{n} the highest was {name}: {mean}"
        said += "" if alone else "; no other start was scored on the same persons"
    elif not rest:
        said = f"{n} start from {name}: {mean}, {_higher(below)}"
    else:
        apart = f", higher than {_names(t.first for t in below)}" if below else ""
        others = f", nor from {_rest(rest[1:], below)}" if len(rest) > 1 else ""
        said = (
            f"{n} the highest was {name}: {mean}{apart}; **it cannot be told apart** from {rest[0].first} "
            f"({_numbers(rest[0])}){others}: {_open(rest[0])}"
        )
    return f"{said}{_with_fewer(few, most, tests)}."


def _with_fewer(few: Score, most: Score, tests: Sequence[MethodTest]) -> str:
    """The highest with the fewest labelled scans, in the same sentence."""
    if few.n == most.n:
        return ""
    below, rest = _others(few, tests)
    apart = f", not told apart from {_rest(rest, below)}" if rest else f", {_higher(below)}" if below else ""
    again = " again" if few.method == most.method else ""
    return f"; with {few.n} the highest was {few.method}{again}, {_score(few)}{apart}"


def _rest(some: Sequence[MethodTest], below: Sequence[MethodTest]) -> str:
    """By name, where they are not simply all that there are."""
    return _names(t.first for t in some) if below or len(some) == 1 else "the others"


def _others(best: Score, tests: Sequence[MethodTest]) -> tuple[list[MethodTest], list[MethodTest]]:
    """A method against those that it was shown to be higher than, and against the others; each the nearest first."""
    own = [t for t in tests if (t.test_set, t.n) == (best.test_set, best.n) and best.method in (t.first, t.second)]
    own = sorted((t if t.second == best.method else t.turned() for t in own), key=_difference)
    return [t for t in own if t.verdict == "higher"], [t for t in own if t.verdict != "higher"]


def _higher(below: Sequence[MethodTest]) -> str:
    others = f"than {below[0].first}" if len(below) == 1 else f"than all others, {below[0].first} the nearest"
    return f"higher {others} ({_numbers(below[0])})"


def enough_words(method: str, tests: Sequence[MethodTest], scores: Sequence[Score]) -> str:
    """From which number of labelled scans on more gained no more than could be seen, of one method.

    Args:
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
    if first == len(tests):
        return (
            f"{head}{method} still gained at the last step that was tried, from {tests[-1].first} to {most} "
            f"({_numbers(tests[-1])}): more labels than were tried may gain more."
        )
    t, less = tests[first], tests[first - 1].turned()  # turned, as the number is said of the fewer labels
    fewer = f"; with {less.second} it was {less.verdict} than with {most} ({_numbers(less)})" if shown else ""
    return (
        f"{head}From {t.first} on, more labels gained {method} no more than could be seen: {most} against {t.first} "
        f"({_numbers(t)}): {_open(t)}{fewer}."
    )


def elsewhere_words(on_target: Score, unseen: Sequence[Score]) -> str:
    """How one method at one n does on data of another source, and on the worst person of each set."""
    who, here = f"With n = {on_target.n}, {on_target.method}'s", on_target.test_set.name
    persons = "; the lowest person" + ("s were " if unseen else " was ")
    persons += _names(_worst(s) for s in (*unseen, on_target))
    if not unseen:
        return (
            f"**What to distrust.** {who} mean IoU on {here} was {_score(on_target)}{persons}; no data of another "
            "source were scored, so nothing is said of other scanners or hospitals."
        )
    each = _names(f"{_score(s)} on {s.test_set.name}" for s in unseen)
    return (
        f"**What to distrust.** {who} mean IoU on data of a source that no model was trained on was {each}, against "
        f"{_score(on_target)} on {here}{persons}."
    )


def started(method: str, study: StudyInfo) -> str:
    """A method as a start: what the network has seen before."""
    found = study.method(method)
    if found is None:
        return method
    return f"{method} (no pre-training)" if found.pretask == "none" else f"{method} (pre-trained on {found.pretask})"


def _worst(s: Score) -> str:
    person = min(s.persons, key=lambda p: s.persons[p])
    return f"{person} ({s.persons[person]:.3f})"


def _open(t: MethodTest) -> str:
    """Why a comparison shows nothing, and what it would have missed."""
    if t.test.n < persons_needed(t.family):
        return none_words(t)
    least = least_difference(t)
    if least is None:
        missed = ""
    elif least >= 1:  # no two IoUs are that far apart
        missed = "; even the largest difference would likely have gone unseen"
    else:
        missed = f"; a difference below {least:.3f} would likely have gone unseen"
    return why_open(t) + missed


def _score(s: Score) -> str:
    return f"{s.mean:.3f} ({_over(s.interval, 'person', '.3f')}, {counted(s.seeds, 'seed')})"


def _numbers(t: MethodTest) -> str:
    """The difference with its interval over persons; that over seeds and p are in the section of the tests."""
    if t.test.mean_difference is None:
        return numbers(t)
    return f"{t.test.mean_difference:+.3f}, {_over(t.test, t.unit, '+.3f')}, {counted(len(t.by_seed), 'seed')}"


def _over(found: Interval | PairedTest, unit: str, form: str) -> str:
    """The interval and its units; of too few for one, from the lowest to the highest, whose values the tables have."""
    units = counted(found.n, unit)
    if found.low is not None:
        return f"{spread_words(found, form)}, {units}"
    return f"{units} from {found.values[0]:{form}} to {found.values[-1]:{form}}" if len(found.values) > 1 else units


def _difference(t: MethodTest) -> float:
    return t.test.mean_difference or 0.0


def _names(names: Iterable[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last
