"""Which volumes of a data set of slices are for test: the last ones, whole, and whole persons."""

import contextlib
from collections.abc import Mapping, Sequence

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.splits import Split, sides_given
from tlseg_jax.preprocess.split_map import NOBODY_LEFT
from tlseg_jax.runtime.errors import InputError


def split_volumes(
    order: Sequence[str],
    samples: Mapping[str, int],
    persons: Mapping[str, str],
    given: Mapping[str, str],
    spec: DatasetSpec,
    test_fraction: float | None = None,
    own: Mapping[str, Split] | None = None,
    others: Mapping[str, Split] | None = None,
) -> tuple[dict[str, Split], list[str]]:
    """Train or test for every volume, and a warning wherever that is not what the rule says.

    The rule: the last `test_slices` samples, or else the last `test_volumes` volumes, are for test
    (Wang & Tang 2020, sections 3.2.1 and 3.2.3). A volume that it would cut through, and a person whose volumes it
    would part, are for test as a whole.

    Args:
      order: the volumes, in the data set's order.
      samples: volume -> its number of samples.
      persons: volume -> person.
      given: volume -> "train" or "test" where the source says so; it wins, for all volumes of that person.
      test_fraction: share of the volumes that the source leaves open, the last ones, in place of the spec's rule.
      own: person -> side of an earlier split of this data set by the same rule, which stays; the rule then fills up
        what it lacks.
      others: person -> side in other data sets of the group, which stays in any case.

    Raises:
      InputError: the source puts one person on both sides or writes another word, or nothing is left to train on
        though some is wanted.
    """
    by_source = sides_given({s: persons[s] for s in order}, given)
    side_of = {**(own or {}), **(others or {}), **by_source}
    if own:
        with contextlib.suppress(InputError):
            anew, said = split_volumes(order, samples, persons, given, spec, test_fraction, None, others)
            if all(side_of.get(persons[s], anew[s]) == anew[s] for s in order):
                return anew, said  # nobody moves
            if len(set(anew.values())) == 2 and len({side_of.get(persons[s]) for s in order}) == 1:
                return anew, [NOBODY_LEFT, *said]
    open_ = [s for s in order if persons[s] not in side_of]
    for_test = [s for s in order if persons[s] not in by_source and side_of.get(persons[s]) == "test"]
    kept = [s for s in order if persons[s] in side_of and persons[s] not in by_source]
    test, warnings = _by_rule(open_, samples, spec, test_fraction, for_test, len(kept))
    for person in dict.fromkeys(persons[s] for s in open_):
        theirs = [s for s in open_ if persons[s] == person]
        tested = [s for s in theirs if s in test]
        if tested and len(tested) < len(theirs):
            moved = [s for s in theirs if s not in test]
            warnings.append(
                f"The rule for the test set parts the volumes of {person}: {', '.join(moved)} would train and "
                f"{', '.join(tested)} test, so all of them are for test."
            )
            test.update(moved)
    sides: dict[str, Split] = {}
    for s in order:
        sides[s] = side_of.get(persons[s], "test" if s in test else "train")
    if "train" not in sides.values():
        if not _all_asked(len(order), len(open_), spec, test_fraction):
            raise InputError(
                f"No volume is left for training: all {len(order)} of {spec.name} ({sum(samples[s] for s in order)} "
                "slices) are in the test set: give more volumes, or a smaller test set with `test_volumes`."
            )
        warnings.append("No volume is left for training: every one is in the test set.")
    return sides, warnings


def _by_rule(
    order: Sequence[str],
    samples: Mapping[str, int],
    spec: DatasetSpec,
    test_fraction: float | None,
    for_test: Sequence[str] = (),
    kept: int = 0,
) -> tuple[set[str], list[str]]:
    """The volumes of `order` that the rule puts, in whole or in part, on the test side.

    Of `kept` others, which have a side already, `for_test` are for test.
    """
    if test_fraction is not None:
        count = min(max(round(test_fraction * (len(order) + kept)) - len(for_test), 0), len(order))
        if 0 < test_fraction < 1 and len(order) > 1 and not kept:  # neither side empty
            count = min(max(count, 1), len(order) - 1)
        return set(order[len(order) - count :]), []
    grid = spec.planes
    if not grid.test_slices:
        return set(order[max(len(order) - max(grid.test_volumes - len(for_test), 0), 0) :]), []
    test: set[str] = set()
    warnings = []
    left = grid.test_slices - sum(samples[s] for s in for_test)
    for s in reversed(order):
        if left <= 0:
            break
        test.add(s)
        if left < samples[s]:
            warnings.append(
                f"The last {grid.test_slices} slices cut through volume {s} ({samples[s] - left} of its {samples[s]} "
                f"slices would train): all of it is for test, which has {samples[s] - left} slices more."
            )
        left -= samples[s]
    return test, warnings


def _all_asked(volumes: int, left_open: int, spec: DatasetSpec, test_fraction: float | None) -> bool:
    """Whether an empty training set is what was asked for."""
    if not left_open:  # the source says so of each
        return True
    if test_fraction is not None:
        return test_fraction == 1
    return not spec.planes.test_slices and spec.planes.test_volumes >= volumes
