"""Who trains and who tests, and which n scans count as labelled.

Every choice ranks persons by a hash of (seed, person), so that it depends on neither the order of
the files nor on which other scans there are, and so that a smaller n is always inside a larger one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from tlseg_jax.errors import InputError

Split = Literal["train", "test"]


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def assign_splits(
    persons: Mapping[str, str],
    given: Mapping[str, str],
    test_fraction: float,
    seed: int = 0,
) -> dict[str, Split]:
    """Train or test for every subject, all scans of one person on one side.

    Args:
      persons: subject -> person (repeat scans share a person).
      given: subject -> "train" or "test" where the source or an earlier data set of the same group
        says so; a person's other scans follow.
      test_fraction: share of the scans to hold out among those that `given` leaves open.
      seed: which random split.

    Raises:
      InputError: `given` puts one person on both sides, or holds another word than train and test.
    """
    by_person: dict[str, list[str]] = {}
    for subject in sorted(persons):
        by_person.setdefault(persons[subject], []).append(subject)
    side: dict[str, Split] = {}
    for person, subjects in by_person.items():
        sides = {given[s] for s in subjects if given.get(s)}
        if not sides:
            continue
        if len(sides) > 1:
            raise InputError(
                f"Person {person} has scans in both train and test ({', '.join(subjects)}): "
                "put all scans of one person on one side."
            )
        (word,) = sides
        if word == "train":
            side[person] = "train"
        elif word == "test":
            side[person] = "test"
        else:
            raise InputError(f"Subject {subjects[0]} has the split '{word}': write train or test.")
    left = sorted((p for p in by_person if p not in side), key=lambda p: _rank(seed, p))
    scans_left = sum(len(by_person[p]) for p in left)
    wanted = round(test_fraction * scans_left)
    both = 0 < test_fraction < 1 and len(left) > 1 and not side
    held = 0
    for person in left:
        # Half of a person's scans past the target still counts as nearer to it than none.
        take = held + len(by_person[person]) / 2 <= wanted and held < wanted
        side[person] = "test" if take else "train"
        held += len(by_person[person]) if take else 0
    if both and held in (0, scans_left):  # neither side empty: the person with the fewest scans changes over
        side[min(left, key=lambda p: len(by_person[p]))] = "train" if held else "test"
    return {s: side[p] for s, p in persons.items()}


def fold_numbers(persons: Sequence[str], folds: int, seed: int = 0) -> dict[str, int]:
    """Person -> fold, 0 to `folds` - 1; folds differ by one person at most in size."""
    order = sorted(set(persons), key=lambda p: _rank(seed, p))
    return {p: i % folds for i, p in enumerate(order)}


def labelled_subset(
    subjects: Sequence[str], persons: Mapping[str, str], n: int, seed: int = 0
) -> tuple[str, ...]:
    """The n training scans that count as labelled: the first n of one seeded order, so nested in n.

    Repeat scans of one person are neighbours in that order.

    Raises:
      InputError: n is below 1 or above the number of training scans.
    """
    if not 1 <= n <= len(subjects):
        raise InputError(
            f"n={n} labelled scans were asked for and the training set has {len(subjects)}: "
            f"give --n between 1 and {len(subjects)}."
        )
    order = sorted(subjects, key=lambda s: (_rank(seed, persons[s]), s))
    return tuple(order[:n])
