"""Passes and their agreement, with networks and masks whose right answer is known."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.evaluate.trust.passes import Pass, make_passes, may_mirror, run_passes, through
from tlseg_jax.evaluate.trust.trusting import doubt, pairwise_dice, passed_structures, volumes
from tlseg_jax.preprocess.codes import decide
from tlseg_jax.runtime.errors import InputError

GRID = VolumeGrid("native", (16, 16, 16), (1.0, 1.0, 1.0), (16, 16, 16), train_count=1, test_count=1)
SIDES = DatasetSpec("two", ("a_left", "a_right"), GRID, label_values=((1,), (2,)))
ONE = DatasetSpec("one", ("a",), GRID)
PATCH = np.random.default_rng(0).standard_normal((2, 16, 8, 8)).astype(np.float32)


def by_side(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bright voxels are the left structure in the first half of x and the right one in the second, as seen."""
    bright = 1 / (1 + np.exp(-4 * patches))
    out = np.zeros((*patches.shape, 2), np.float32)
    half = patches.shape[1] // 2
    out[:, :half, ..., 0], out[:, half:, ..., 1] = bright[:, :half], bright[:, half:]
    return out


def bright(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-4 * patches)))[..., None].astype(np.float32)


def test_a_mirrored_pass_of_a_symmetric_network_agrees_and_the_sides_are_exchanged_back() -> None:
    for network, spec in ((by_side, SIDES), (bright, ONE)):
        np.testing.assert_array_equal(through(network, Pass(mirrored=True), spec)(PATCH), network(PATCH))


def test_a_shift_is_taken_back_but_for_the_border() -> None:
    found = through(bright, Pass(shift=(2, -1, 0)), ONE)(PATCH)
    np.testing.assert_array_equal(found[:, :-2, 1:], bright(PATCH)[:, :-2, 1:])


def test_grey_values_change_in_order_and_noise_comes_from_the_seed_alone() -> None:
    def seen(one: Pass) -> NDArray[np.float32]:
        return through(lambda p: p[..., None], one, ONE)(PATCH)[..., 0]

    for one in (Pass(gamma=1.3), Pass(gain=1.2, offset=-0.1), Pass(gamma=0.7, gain=0.8)):
        order = np.argsort(PATCH[0], axis=None)
        assert (np.diff(seen(one)[0].ravel()[order]) >= 0).all()
    np.testing.assert_array_equal(seen(Pass(noise=0.1, seed=3)), seen(Pass(noise=0.1, seed=3)))
    noise = seen(Pass(noise=0.1, seed=3)) - PATCH
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-5)  # whatever a patch's place in its batch


def test_passes_are_those_of_their_seed_and_more_add_to_fewer() -> None:
    assert make_passes(8, 0, True) == make_passes(8, 0, True) != make_passes(8, 1, True)
    assert make_passes(8, 0, True)[:4] == make_passes(4, 0, True)
    assert make_passes(4, 0, True)[0] == Pass() and make_passes(4, 0, True)[1] == Pass(mirrored=True)
    assert not any(p.mirrored for p in make_passes(8, 0, False))
    with pytest.raises(InputError, match="2 or more"):
        make_passes(1, 0, True)


def test_what_has_no_partner_or_is_not_flipped_in_training_is_not_mirrored() -> None:
    assert may_mirror(SIDES) and may_mirror(ONE)
    assert not may_mirror(SIDES.changed(flip_left_right=False))
    assert not may_mirror(DatasetSpec("left", ("a_left", "b"), GRID, label_values=((1,), (2,))))


@pytest.mark.parametrize("exclusive", [True, False])
def test_pairwise_dice_is_that_of_all_pairs_one_by_one(exclusive: bool) -> None:
    codes = np.random.default_rng(1).integers(0, 4, (5, 6, 7, 8)).astype(np.uint8)
    for structure, found in enumerate(pairwise_dice(codes, 2, exclusive)):
        masks = [c == structure + 1 if exclusive else (c >> structure & 1) > 0 for c in codes]
        pairs = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in itertools.combinations(masks, 2)]
        assert found == pytest.approx(np.mean(pairs))
        assert volumes(codes, 2, exclusive)[:, structure].tolist() == [m.sum() for m in masks]
    assert pairwise_dice(np.zeros((3, 4, 4, 4), np.uint8), 1, True) == [1.0]


def test_the_mean_doubt_and_volumes_are_those_of_the_passes() -> None:
    image = PATCH[0]
    passes = make_passes(6, 0, True)
    passed = run_passes(lambda p: p(image[None])[0], [bright, bright], passes, ONE)
    one_by_one = [through(bright, p, ONE)(image[None])[0] for p in passes]
    np.testing.assert_array_equal(passed.first, bright(image[None])[0])
    np.testing.assert_allclose(passed.mean, np.mean(one_by_one, 0), atol=1e-6)
    assert passed.codes.shape == (12, *image.shape)
    decided = decide(passed.mean, True)
    others = np.mean([decide(p, True) != decided for p in one_by_one], 0)
    np.testing.assert_allclose(doubt(passed.codes, decided), others, atol=1e-6)
    (found,) = passed_structures(passed, ONE, {"a": 10.0}).values()
    counts = np.array([(p > 0.5).sum() for p in one_by_one]) / (decided > 0).sum()
    assert found.low_ml == pytest.approx(10 * min(counts.min(), 1)) and found.ml == 10
    assert found.high_ml == pytest.approx(10 * max(counts.max(), 1))
