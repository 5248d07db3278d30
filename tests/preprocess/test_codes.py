"""One byte a voxel for all structures."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from tlseg_jax.geometry import Grid
from tlseg_jax.preprocess.codes import UNMARKED, anywhere, decide, encode, mask_of, mirror_table
from tlseg_jax.preprocess.steps.resample import codes_to_grid, codes_to_scan, mask_to_grid, to_scan

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("exclusive", [True, False])
def test_masks_come_back_from_their_codes(exclusive: bool) -> None:
    draw = RNG.integers(0, 4, (5, 6, 7))
    masks = [draw == k for k in (1, 2, 3)] if exclusive else [RNG.random((5, 6, 7)) > 0.5 for _ in range(3)]
    codes = encode(masks, exclusive)
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(mask_of(codes, i, exclusive), mask)
    np.testing.assert_array_equal(anywhere(codes), np.any(masks, axis=0))


def test_where_nobody_looked_is_nothing() -> None:
    assert not anywhere(np.array([0, UNMARKED], np.uint8)).any()


def test_the_most_probable_of_all_is_taken_the_background_too() -> None:
    p = RNG.dirichlet([1, 1, 1, 1], (6, 7, 8)).astype(np.float32)
    np.testing.assert_array_equal(decide(p[..., 1:], True), p.argmax(-1))
    np.testing.assert_array_equal(decide(p[..., 1:2], True), p[..., 1] > 0.5)
    np.testing.assert_array_equal(decide(p[..., 1:], False), ((p[..., 1:] > 0.5) * [1, 2, 4]).sum(-1))


def test_a_mirror_changes_partners_and_twice_nothing() -> None:
    assert mirror_table((0, 1, 2), True) == ()
    for exclusive in (True, False):
        table = np.array(mirror_table((1, 0, 2), exclusive))
        np.testing.assert_array_equal(table[table], np.arange(256))
        codes = np.arange(4 if exclusive else 8, dtype=np.uint8)
        for here, there in ((0, 1), (1, 0), (2, 2)):
            moved = mask_of(table[codes].astype(np.uint8), there, exclusive)
            np.testing.assert_array_equal(moved, mask_of(codes, here, exclusive))
    assert np.array(mirror_table((1, 0), True))[UNMARKED] == UNMARKED


def _rotated(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:2, :2] = [[c, -s], [s, c]]
    return affine


def test_codes_of_one_structure_are_its_mask_on_any_grid() -> None:
    mask = np.linalg.norm(np.indices((24, 24, 24)) - 11.3, axis=0) < 7
    for side, angle in itertools.product((0.7, 1.0, 2.0), (0.0, 0.3)):
        affine = _rotated(angle) @ np.diag([side, side, side, 1.0])
        grid = Grid((20, 20, 20), affine)
        found = codes_to_grid(mask.astype(np.uint8), np.eye(4), grid, np.eye(4), 1, True)
        np.testing.assert_array_equal(found > 0, mask_to_grid(mask, np.eye(4), grid, np.eye(4)))


def test_neighbours_meet_in_their_middle_and_leave_no_gap_on_a_coarser_grid() -> None:
    """Two halves of a block: each alone is cut at one half, and both together are the block."""
    codes = np.zeros((32, 32, 32), np.uint8)
    codes[4:15, 4:28, 4:28], codes[15:28, 4:28, 4:28] = 1, 2
    grid = Grid((16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
    found = codes_to_grid(codes, np.eye(4), grid, np.eye(4), 2, True)
    block = mask_to_grid(codes > 0, np.eye(4), grid, np.eye(4))
    np.testing.assert_array_equal(found > 0, block)
    assert set(np.unique(found[3:7, 4:12, 4:12])) == {1} and set(np.unique(found[8:13, 4:12, 4:12])) == {2}


def test_probabilities_go_back_each_as_alone() -> None:
    p = np.zeros((20, 20, 20, 2), np.float32)
    p[3:9, 4:12, 5:11, 0], p[10:17, 4:12, 5:11, 1] = 0.8, 0.9
    grid, affine = Grid((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0])), _rotated(0.2)
    found = to_scan(p, grid, np.eye(4), (40, 40, 40), affine)
    for i in range(2):
        alone = to_scan(p[..., i], grid, np.eye(4), (40, 40, 40), affine)
        np.testing.assert_allclose(found[..., i], alone, atol=1e-6)


@pytest.mark.parametrize("structures", [1, 2, 5])
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("spacing", [1.0, 3.0], ids=["finer", "blurred"])
def test_the_codes_on_the_scan_are_those_of_the_probabilities_there(
    structures: int, exclusive: bool, spacing: float
) -> None:
    """Of smooth noise, whose structures meet each other and the border of the grid."""
    noise = np.random.default_rng(structures).normal(size=(18, 20, 22, structures + 1))
    logits = 12 * ndimage.gaussian_filter(noise, (1.5, 1.5, 1.5, 0))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) if exclusive else 1 / (1 + np.exp(-logits))
    p = p[..., 1:].astype(np.float32)
    grid, affine = Grid((18, 20, 22), np.diag([2.0, 2.0, 2.0, 1.0])), _rotated(0.3) @ np.diag([spacing] * 3 + [1.0])
    way = (grid, np.eye(4), (int(44 / spacing),) * 3, affine)
    maps = np.stack([to_scan(p[..., i], *way) for i in range(structures)], -1).astype(np.float64)
    found = codes_to_scan(p, *way, exclusive)
    if exclusive:
        every = np.concatenate([1 - maps.sum(-1, keepdims=True), maps], -1)
        clear = np.diff(np.sort(every, -1)[..., -2:]).squeeze(-1) > 1e-5
        np.testing.assert_array_equal(found[clear], every.argmax(-1)[clear])
    else:
        clear = (np.abs(maps - 0.5) > 1e-5).all(-1)
        np.testing.assert_array_equal(found[clear], ((maps > 0.5) << np.arange(structures)).sum(-1)[clear])
    assert clear.mean() > 0.99 and len(np.unique(found)) > structures
