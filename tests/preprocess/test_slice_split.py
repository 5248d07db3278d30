"""Splits of volumes: never through one, never through a person, whatever the numbers."""

import numpy as np
import pytest

from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.preprocess.slice_split import split_volumes
from tlseg_jax.preprocess.slice_subject import natural_order
from tlseg_jax.runtime.errors import InputError

LITS = PAPERS["lits"]
MRI = PAPERS["mri_artery"]


def test_the_reports_numbers() -> None:
    order = [str(i) for i in range(22)]
    own = {s: s for s in order}
    sides, warnings = split_volumes(order, dict.fromkeys(order, 50), own, {}, LITS)
    assert [s for s in order if sides[s] == "test"] == ["20", "21"] and warnings == []
    order = [f"FZMC{i:03}" for i in range(36)]
    sides, warnings = split_volumes(order, dict.fromkeys(order, 72), {s: s for s in order}, {}, MRI)
    assert [s for s in order if sides[s] == "test"] == order[-4:] and warnings == []


def test_a_volume_on_the_boundary_goes_to_test_and_is_named() -> None:
    samples = {"a": 500, "b": 60, "c": 70, "d": 50}
    sides, (warning,) = split_volumes(list("abcd"), samples, {s: s for s in "abcd"}, {}, LITS)
    assert sides == {"a": "train", "b": "train", "c": "test", "d": "test"}
    assert "cut through volume c (20 of its 70 slices would train)" in warning and "20 slices more" in warning


def test_no_volume_and_no_person_is_ever_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    tried = 0
    for _ in range(300):
        order = [str(i) for i in range(rng.integers(2, 12))]
        samples = {s: int(rng.integers(1, 80)) for s in order}
        persons = {s: str(rng.integers(0, 8)) for s in order}
        given = {s: str(rng.choice(["train", "test"])) for s in order if rng.random() < 0.15}
        spec = LITS.changed(test_slices=int(rng.integers(0, 150)), test_volumes=int(rng.integers(0, 4)))
        fraction = None if rng.random() < 0.7 else float(rng.random())
        try:
            sides, warnings = split_volumes(order, samples, persons, given, spec, fraction)
        except InputError as e:
            assert "both train and test" in str(e) or "No volume is left for training" in str(e)
            continue
        tried += 1
        assert set(sides) == set(order)
        for p in set(persons.values()):
            assert len({sides[s] for s in order if persons[s] == p}) == 1
        assert all(sides[s] == side for s, side in given.items())
        if not given and fraction is None:
            test = [s for s in order if sides[s] == "test"]
            rule = spec.planes.test_slices or sum(samples[s] for s in order[len(order) - spec.planes.test_volumes :])
            assert sum(samples[s] for s in test) >= (rule if spec.planes.test_volumes or spec.planes.test_slices else 0)
            if sum(samples[s] for s in test) != rule and spec.planes.test_slices:
                assert warnings
    assert tried > 150


def test_a_person_that_the_rule_would_part_is_named() -> None:
    persons = {"a": "p", "b": "q", "c": "p", "d": "r"}
    spec = MRI.changed(test_volumes=2)
    sides, (warning,) = split_volumes(list("abcd"), dict.fromkeys("abcd", 10), persons, {}, spec)
    assert sides == {"a": "test", "b": "train", "c": "test", "d": "test"}
    assert "volumes of p: a would train and c test" in warning


def test_the_sources_split_wins() -> None:
    own = {s: s for s in "abcd"}
    sides, _ = split_volumes(list("abcd"), dict.fromkeys("abcd", 10), own, {"d": "train", "a": "test"}, MRI_2)
    assert sides == {"a": "test", "b": "test", "c": "test", "d": "train"}
    with pytest.raises(InputError, match="Person p has scans in both"):
        split_volumes(["a", "b"], {"a": 1, "b": 1}, {"a": "p", "b": "p"}, {"a": "train", "b": "test"}, MRI_2)


MRI_2 = MRI.changed(test_volumes=2)


def test_something_must_be_left_to_train_on_unless_all_was_asked_for() -> None:
    order, samples, own = ["a", "b"], {"a": 50, "b": 40}, {"a": "a", "b": "b"}
    with pytest.raises(InputError, match=r"all 2 of lits \(90 slices\).*`test_volumes`"):
        split_volumes(order, samples, own, {}, LITS)
    sides, warnings = split_volumes(order, samples, own, {}, MRI)
    assert set(sides.values()) == {"test"} and "No volume is left for training" in warnings[0]
    assert set(split_volumes(order, samples, own, {}, LITS, 1.0)[0].values()) == {"test"}
    assert set(split_volumes(order, samples, own, {}, LITS, 0.0)[0].values()) == {"train"}
    assert split_volumes(order, samples, own, {}, LITS, 0.01)[0] == {"a": "train", "b": "test"}
    assert split_volumes(order, samples, own, {}, LITS, 0.99)[0] == {"a": "train", "b": "test"}
    everything = MRI.changed(test_volumes=0)
    assert set(split_volumes(order, samples, own, {}, everything)[0].values()) == {"train"}


def test_natural_order() -> None:
    names = ["volume-10", "volume-2", "FZMC042", "FZMC5", "volume-2b", "volume", "²"]
    assert sorted(names, key=natural_order) == ["FZMC5", "FZMC042", "volume", "volume-2", "volume-2b", "volume-10", "²"]
    with_gaps = [str(i) for i in range(12)]
    assert sorted(sorted(with_gaps), key=natural_order) == with_gaps


def test_earlier_sides_stay_and_the_rule_fills_up_what_they_lack() -> None:
    order, samples = list("abcdef"), dict.fromkeys("abcdef", 50)
    own = {s: s for s in order}
    first, _ = split_volumes(order, samples, own, {}, MRI_2)
    assert [s for s in order if first[s] == "test"] == ["e", "f"]
    less = [s for s in order if s != "f"]
    assert split_volumes(less, samples, own, {}, MRI_2, None, first)[0] == {s: first[s] for s in less}
    more = [*less, "g", "h"]
    later, _ = split_volumes(more, samples | {"g": 50, "h": 50}, {s: s for s in more}, {}, MRI_2, None, first)
    assert {s: later[s] for s in less} == {s: first[s] for s in less}
    assert (later["g"], later["h"]) == ("train", "test")
    anew, (said,) = split_volumes(list("abcd"), samples, own, {}, MRI_2, None, first)  # nobody of the test set is left
    assert [s for s in "abcd" if anew[s] == "test"] == ["c", "d"] and "split anew" in said
    others, _ = split_volumes(order, samples, own, {}, MRI_2, None, None, {"a": "test", "f": "train"})
    assert (others["a"], others["f"]) == ("test", "train")
