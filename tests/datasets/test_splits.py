"""Splits as properties over random persons, scans and orders."""

import collections
import random

import pytest

from tlseg_jax.datasets.splits import Split, assign_splits, hold_out, labelled_subset, numbered
from tlseg_jax.runtime.errors import InputError


def random_persons(rng: random.Random, most: int = 40) -> dict[str, str]:
    """Subject -> person, one to four scans each, in a random order."""
    pairs = [
        (f"sub-{p}-{scan}", f"p{p}") for p in range(rng.randint(1, most)) for scan in range(rng.choice([1, 1, 1, 2, 4]))
    ]
    rng.shuffle(pairs)
    return dict(pairs)


@pytest.mark.parametrize("seed", range(60))
def test_a_person_is_on_one_side_and_the_count_is_near(seed: int) -> None:
    rng = random.Random(seed)
    persons = random_persons(rng)
    fraction = rng.uniform(0.05, 0.95)
    side = assign_splits(persons, {}, fraction, seed)
    assert side.keys() == persons.keys()
    sides = collections.defaultdict(set)
    for s, where in side.items():
        sides[persons[s]].add(where)
    assert all(len(v) == 1 for v in sides.values())
    held = sum(v == "test" for v in side.values())
    largest = max(collections.Counter(persons.values()).values())
    assert abs(held - fraction * len(persons)) <= largest + 1
    if len(sides) > 1:
        assert set(side.values()) == {"train", "test"}


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("scans", [2, 3, 5])
def test_two_persons_of_many_scans_stand_on_two_sides(fraction: float, scans: int) -> None:
    persons = {f"{p}{i}": p for p in "ab" for i in range(scans)}
    assert set(assign_splits(persons, {}, fraction).values()) == {"train", "test"}


@pytest.mark.parametrize("count", [(306, 76), (544, 118), (0, 39), (8, 0)])
def test_single_scans_split_as_in_the_paper(count: tuple[int, int]) -> None:
    train, test = count
    persons = {f"s{i}": f"p{i}" for i in range(train + test)}
    side = assign_splits(persons, {}, test / (train + test))
    assert collections.Counter(side.values()) == collections.Counter({"train": train, "test": test})


def test_given_sides_are_respected_and_a_persons_other_scans_follow() -> None:
    persons = {"a1": "a", "a2": "a", "b1": "b", "c1": "c", "d1": "d"}
    side = assign_splits(persons, {"a1": "test", "b1": "train", "zz": "test", "c1": ""}, 0.5)
    assert (side["a1"], side["a2"], side["b1"]) == ("test", "test", "train")
    assert {side["c1"], side["d1"]} == {"train", "test"}


@pytest.mark.parametrize("seed", range(10))
def test_all_given_is_kept_whatever_the_fraction(seed: int) -> None:
    rng = random.Random(seed)
    persons = random_persons(rng)
    chosen = {p: rng.choice(["train", "test"]) for p in set(persons.values())}
    given = {s: chosen[p] for s, p in persons.items()}
    assert assign_splits(persons, given, rng.random(), seed) == given


def test_a_contradiction_names_person_and_scans() -> None:
    with pytest.raises(InputError, match=r"Person p has scans in both train and test \(s1, s2\)"):
        assign_splits({"s1": "p", "s2": "p"}, {"s1": "train", "s2": "test"}, 0.5)


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match=r"'valid': write train or test"):
        assign_splits({"s1": "p"}, {"s1": "valid"}, 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_files_does_not_matter_and_the_seed_does(seed: int) -> None:
    rng = random.Random(seed)
    persons = {f"s{i}": f"p{i // 2}" for i in range(30)}
    shuffled = dict(rng.sample(list(persons.items()), len(persons)))
    assert assign_splits(persons, {}, 0.3, seed) == assign_splits(shuffled, {}, 0.3, seed)
    assert assign_splits(persons, {}, 0.3, seed) != assign_splits(persons, {}, 0.3, seed + 1000)


@pytest.mark.parametrize("seed", range(30))
def test_subsets_are_nested_and_repeat_scans_are_neighbours(seed: int) -> None:
    rng = random.Random(seed)
    persons = random_persons(rng)
    subjects = list(persons)
    chosen = [labelled_subset(subjects, persons, n, seed) for n in range(1, len(subjects) + 1)]
    for n, subset in enumerate(chosen, 1):
        assert len(set(subset)) == n
        assert subset == chosen[-1][:n]
    assert sorted(chosen[-1]) == sorted(subjects)
    order = [persons[s] for s in chosen[-1]]
    runs = [p for i, p in enumerate(order) if i == 0 or order[i - 1] != p]
    assert len(runs) == len(set(order))
    assert labelled_subset(rng.sample(subjects, len(subjects)), persons, len(subjects), seed) == chosen[-1]


def test_the_subset_depends_on_the_seed_and_not_on_the_names_order() -> None:
    persons = {f"s{i:02d}": f"p{i:02d}" for i in range(40)}
    subsets = {labelled_subset(list(persons), persons, 10, seed) for seed in range(5)}
    assert len(subsets) == 5
    assert tuple(sorted(persons)[:10]) not in subsets


@pytest.mark.parametrize("n", [0, -1, 4])
def test_n_out_of_range_says_how_many_there_are(n: int) -> None:
    with pytest.raises(InputError, match=rf"n={n} labelled scans.*has 3.*between 1 and 3"):
        labelled_subset(["a", "b", "c"], dict(a="a", b="b", c="c"), n)


@pytest.mark.parametrize("seed", range(30))
def test_whoever_leaves_or_comes_moves_nobody_and_the_share_stays(seed: int) -> None:
    rng = random.Random(seed)
    persons = {f"s{i}": f"p{i}" for i in range(rng.randint(10, 60))}
    fraction = rng.uniform(0.2, 0.8)
    first = assign_splits(persons, {}, fraction, seed)
    kept: dict[str, Split] = {persons[s]: side for s, side in first.items()}
    numbers = numbered(persons.values())
    now = {s: p for s, p in persons.items() if rng.random() < 0.8} | {f"new{i}": f"q{i}" for i in range(20)}
    later = assign_splits(now, {}, fraction, seed, kept)
    assert all(later[s] == first[s] for s in now if s in first)
    assert {p: k for p, k in numbered(now.values(), numbers).items() if p in numbers} == numbers
    held = sum(v == "test" for v in later.values())
    was = sum(first[s] == "test" for s in now if s in first)
    assert abs(held - fraction * len(now)) <= 1 or held in (was, was + 20)  # as near as those who are new can bring it


@pytest.mark.parametrize("seed", range(30))
def test_validation_never_parts_a_person_and_holds_out_no_fewer(seed: int) -> None:
    rng = random.Random(seed)
    persons = random_persons(rng) | {"z1": "z"}
    subjects = labelled_subset(list(persons), persons, len(persons), seed)
    k = rng.randint(0, len(subjects) // 3)
    try:
        fitted, held = hold_out(subjects, persons, k)
    except InputError as e:
        assert k and "leaves none to train on" in str(e)
        return
    assert fitted + held == subjects and k <= len(held) <= k + 3
    assert not {persons[s] for s in fitted} & {persons[s] for s in held}


@pytest.mark.parametrize("k", [-1, 3, 9])
def test_validation_that_leaves_nobody_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"`validation={k}` of 3 labelled scans of 2 person"):
        hold_out(("a1", "b1", "b2"), {"a1": "a", "b1": "b", "b2": "b"}, k)
