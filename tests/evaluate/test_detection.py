"""Tumour-wise detection against a brute-force search over all matchings, hand-made cases and properties."""

import itertools
import json

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.evaluate.detection import Detection, detect, label_components, pool

Mask = NDArray[np.bool_]


def empty(*shape: int) -> Mask:
    return np.zeros(shape or (4, 12, 12), np.bool_)


def flood(mask: Mask) -> list[frozenset[tuple[int, ...]]]:
    """Components by walking from voxel to voxel, with all 26 neighbours."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    steps = [s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)]
    parts = []
    while left:
        seed = left.pop()
        part, todo = {seed}, [seed]
        while todo:
            at = todo.pop()
            for s in steps:
                n = tuple(a + b for a, b in zip(at, s, strict=True))
                if n in left:
                    left.remove(n)
                    part.add(n)
                    todo.append(n)
        parts.append(frozenset(part))
    return parts


def most_pairs(edges: list[set[int]], used: frozenset[int] = frozenset()) -> int:
    """The most pairs of any one-to-one matching, by trying them all."""
    if not edges:
        return 0
    first, rest = edges[0], edges[1:]
    return max([most_pairs(rest, used), *(1 + most_pairs(rest, used | {e}) for e in first - used)])


def brute(predicted: Mask, reference: Mask) -> Detection:
    ours, theirs = flood(predicted), flood(reference)
    edges = [{j for j, p in enumerate(ours) if len(p & r) / len(p | r) >= 0.5} for r in theirs]
    found = most_pairs(edges)
    return Detection(found, len(theirs) - found, len(ours) - found)


def test_against_all_matchings() -> None:
    rng = np.random.default_rng(1)
    seen = Detection(0, 0, 0)
    for _ in range(250):
        reference = rng.random((3, 9, 9)) < 0.08
        predicted = reference ^ (rng.random(reference.shape) < 0.03)
        found = detect(predicted, reference)
        assert found == brute(predicted, reference)
        seen = pool([seen, found])
    assert seen.found and seen.missed and seen.false


def test_precision_one_way_is_recall_the_other_way() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        a, b = rng.random((4, 8, 8)) < 0.1, rng.random((4, 8, 8)) < 0.1
        b |= a & (rng.random(a.shape) < 0.8)
        there, back = detect(a, b), detect(b, a)
        assert (there.precision, there.recall) == (back.recall, back.precision)
        assert there.found == back.found


def test_axes_and_mirrors_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((5, 6, 7)) < 0.1, rng.random((5, 6, 7)) < 0.1
    b |= a
    assert detect(a, b) == detect(a.transpose(2, 0, 1)[::-1], b.transpose(2, 0, 1)[::-1])


def test_half_overlap_is_enough_and_less_is_not() -> None:
    reference, predicted = empty(), empty()
    reference[1, 2:6, 2] = True  # four voxels
    predicted[1, 2:4, 2] = True  # two of them: 2 / 4
    assert detect(predicted, reference) == Detection(1, 0, 0)
    predicted[1, 1, 2] = True  # 2 / 5
    assert detect(predicted, reference) == Detection(0, 1, 1)


def test_one_component_finds_one_tumour_at_most_and_the_other_way_round() -> None:
    two, one = empty(), empty()
    two[1, 2:4, 2:4] = two[1, 5:9, 2:4] = True
    one[1, 2:9, 2:4] = True  # 8 / 14 of the second
    assert detect(one, two) == Detection(1, 1, 0)
    assert detect(two, one) == Detection(1, 0, 1)


def test_corners_connect() -> None:
    mask = empty(2, 3, 3)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    labels, count = label_components(mask)
    assert count == 1 and labels.sum() == 2
    mask[1, 1, 1] = False
    mask[1, 2, 2] = True
    assert label_components(mask)[1] == 2


def test_nothing_there() -> None:
    one = empty()
    one[2, 3, 3] = True
    nothing = detect(empty(), empty())
    assert nothing == Detection(0, 0, 0) and nothing.precision is None and nothing.recall is None
    missed = detect(empty(), one)
    assert missed == Detection(0, 1, 0) and missed.precision is None and missed.recall == 0
    false = detect(one, empty())
    assert false == Detection(0, 0, 1) and false.precision == 0 and false.recall is None
    assert json.loads(json.dumps(nothing.to_dict())) == {
        "found": 0,
        "missed": 0,
        "false": 0,
        "precision": None,
        "recall": None,
    }


def test_pooling_counts_tumours_and_not_volumes() -> None:
    pooled = pool([Detection(1, 0, 0), Detection(0, 3, 1), Detection(0, 0, 0)])
    assert pooled == Detection(1, 3, 1)
    assert pooled.recall == 0.25 and pooled.precision == 0.5
    assert pool([]) == Detection(0, 0, 0)
