"""Who trains and who tests, and which n scans count as labelled.

Every choice ranks persons by a hash of (seed, person), so that it depends on neither the order of
the files nor on which other scans there are, and so that a smaller n is always inside a larger one.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from tlseg_jax.runtime.errors import InputError

Split = Literal["train", "test"]


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def assign_splits(
    persons: Mapping[str, str],
    given: Mapping[str, str],
    test_fraction: float,
    seed: int = 0,
    kept: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """Train or test for every subject, all scans of one person on one side.

    Args:
      persons: subject -> person (repeat scans share a person).
      given: subject -> "train" or "test" where the source says so; a person's other scans follow.
      test_fraction: share of the scans to hold out among those that `given` leaves open.
      seed: which random split.
      kept: person -> side of an earlier split, which stays whoever else has come or gone since.

    Raises:
      InputError: `given` puts one person on both sides, or holds another word than train and test.
    """
    by_person: dict[str, list[str]] = {}
    for subject in sorted(persons):
        by_person.setdefault(persons[subject], []).append(subject)
    side = sides_given(persons, given)
    kept = {p: where for p, where in (kept or {}).items() if p in by_person and p not in side}
    side |= kept
    left = sorted((p for p in by_person if p not in side), key=lambda p: _rank(seed, p))
    scans_left = sum(len(by_person[p]) for p in left)
    held_out = sum(len(by_person[p]) for p, where in kept.items() if where == "test")
    wanted = round(test_fraction * (scans_left + sum(len(by_person[p]) for p in kept)))
    both = 0 < test_fraction < 1 and len(left) > 1 and not side
    for person in left:
        # Half of a person's scans past the target still counts as nearer to it than none.
        take = held_out + len(by_person[person]) / 2 <= wanted and held_out < wanted
        side[person] = "test" if take else "train"
        held_out += len(by_person[person]) if take else 0
    if both and held_out in (0, scans_left):  # neither side empty: the person with the fewest scans changes over
        side[min(left, key=lambda p: len(by_person[p]))] = "train" if held_out else "test"
    return {s: side[p] for s, p in persons.items()}


def sides_given(persons: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Split]:
    """Person -> side, of those of whom the source says it of a scan.

    Args:
      persons: subject -> person.
      given: subject -> "train" or "test" where the source says so.

    Raises:
      InputError: it puts one person on both sides, or holds another word than train and test.
    """
    side: dict[str, Split] = {}
    for subject in sorted(s for s in persons if given.get(s)):
        word, person = given[subject], persons[subject]
        if word not in ("train", "test"):
            raise InputError(f"Subject {subject} has the split '{word}': write train or test.")
        if side.setdefault(person, "train" if word == "train" else "test") != word:
            theirs = ", ".join(sorted(s for s in persons if persons[s] == person))
            raise InputError(
                f"Person {person} has scans in both train and test ({theirs}): put all scans of one person on one side."
            )
    return side


def numbered(persons: Iterable[str], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Person -> number, from 0; who has one keeps it, and the others take the next ones in a random order.

    A person's fold is its number modulo the folds.
    """
    numbers = dict(known or {})
    new = sorted(set(persons) - numbers.keys(), key=lambda p: _rank(0, p))
    return numbers | dict(zip(new, itertools.count(max(numbers.values(), default=-1) + 1), strict=False))


def hold_out(subjects: Sequence[str], persons: Mapping[str, str], k: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parts labelled scans into those that train and those that validate: the last k, and the rest of their persons.

    Args:
      subjects: as `labelled_subset` orders them.
      persons: subject -> person.
      k: how many are to validate, at least.

    Returns:
      (train, validate); no person is in both.

    Raises:
      InputError: nobody is left to train on.
    """
    held_out = {persons[s] for s in subjects[len(subjects) - k :]}
    fitted = tuple(s for s in subjects if persons[s] not in held_out)
    if k < 0 or not fitted:
        raise InputError(
            f"`validation={k}` of {len(subjects)} labelled scans of {len({persons[s] for s in subjects})} person(s) "
            "leaves none to train on, as all scans of a person are on one side: give fewer."
        )
    return fitted, tuple(s for s in subjects if persons[s] in held_out)


def labelled_subset(subjects: Sequence[str], persons: Mapping[str, str], n: int, seed: int = 0) -> tuple[str, ...]:
    """The n training scans that count as labelled: the first n of one seeded order, so nested in n.

    Repeat scans of one person are neighbours in that order.

    Raises:
      InputError: n is below 1 or above the number of training scans.
    """
    if not 1 <= n <= len(subjects):
        raise InputError(
            f"n={n} labelled scans were asked for and the training set has {len(subjects)}: "
            f"give `n` between 1 and {len(subjects)}."
        )
    order = sorted(subjects, key=lambda s: (_rank(seed, persons[s]), s))
    return tuple(order[:n])
