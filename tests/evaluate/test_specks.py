"""What counts as a speck goes by the training labels; what is dropped goes by the parts of a mask."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import SIDE, write_store
from tests.evaluate.slices import write_slice_store
from tests.many_structures import HALVES, lateral, write_halves
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.evaluate.results import evaluate_store
from tlseg_jax.evaluate.specks import MARGIN, smallest_pieces, without_specks
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.store.store import Store, write_subject

ONE = get_spec("hdt_c")


def cubes(*sides: int) -> NDArray[np.uint8]:
    """A mask of cubes that do not touch, of these sides, in a row."""
    codes = np.zeros((40, 12, 12), np.uint8)
    at = 0
    for side in sides:
        codes[at : at + side, :side, :side] = 1
        at += side + 1
    return codes


def store_of(folder: Path, *labels: NDArray[np.uint8]) -> Store:
    store = write_store(folder, train=len(labels), test=1)
    for subject, label in zip(store.subjects("train"), labels, strict=True):
        write_subject(folder / "subjects" / f"{subject}.zarr", np.zeros(label.shape), label)
    return Store(folder)


def test_the_smallest_piece_is_a_share_of_its_own_subject(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", cubes(10, 8), cubes(10))
    assert smallest_pieces(store, store.subjects("train")) == {"blob": pytest.approx(512 / 1512)}
    # A voxel that slipped off the pen makes no piece.
    slipped = store_of(tmp_path / "t", cubes(10, 8, 1))
    assert smallest_pieces(slipped, slipped.subjects("train")) == {"blob": pytest.approx(512 / 1513)}


def test_pieces_far_below_the_smallest_go_and_others_stay() -> None:
    given = cubes(10, 4, 3, 1)  # 1000, 64, 27 and 1 voxels
    share = 64 / 1092 / MARGIN
    out = without_specks(given, ONE, {"caudate": share * 0.999})
    np.testing.assert_array_equal(out, np.where(np.arange(40)[:, None, None] < 16, given, 0))
    assert without_specks(given, ONE, {}) is given  # nothing is known of a model of before
    assert given.sum() == 1092  # the network's answer itself is left as it was


def test_pieces_that_touch_by_a_corner_are_one() -> None:
    codes = np.zeros((8, 8, 8), np.uint8)
    codes[:4, :4, :4] = codes[4, 4, 4] = 1
    assert without_specks(codes, ONE, {"caudate": 1.0}).sum() == 65


def test_of_several_structures_each_goes_by_its_own_pieces() -> None:
    codes = cubes(10, 2, 1)
    codes[codes > 0] = np.where(np.arange(40) < 12, 1, 2)[np.nonzero(codes)[0]]  # the second cube is cut in two
    codes[11:13, :2, :2] = 2
    exclusive = without_specks(codes, lateral(ONE), dict.fromkeys(HALVES, 1.0))
    assert (exclusive == 1).sum() == 1000 and (exclusive == 2).sum() == 9  # of nine voxels one is no speck
    nested = np.where(cubes(10), 3, 0).astype(np.uint8)
    nested[15, 5, 5], nested[20, 5, 5] = 1, 2
    out = without_specks(nested, lateral(ONE, exclusive=False), {HALVES[0]: 1.0})
    assert out[15, 5, 5] == 0 and out[20, 5, 5] == 2 and (out == 3).sum() == 1000


def test_slices_with_gaps_have_no_pieces(tmp_path: Path) -> None:
    whole, gaps = write_slice_store(tmp_path / "s"), write_slice_store(tmp_path / "g", samples=(0, 1, 2, 5, 6))
    assert smallest_pieces(gaps, gaps.subjects("train")) == {}
    assert smallest_pieces(whole, whole.subjects("train"))["liver"] == 1
    assert smallest_pieces(whole, whole.subjects("train"))["tumour"] < 0.6  # two in each volume


def test_scores_are_of_what_is_left(tmp_path: Path) -> None:
    store = write_halves(tmp_path / "s")

    def spotted(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """The truth by its brightness, and a spot in a corner where nothing is."""
        bright = patches > 1.5
        left = np.arange(SIDE)[:, None, None] < SIDE // 2
        out = np.stack([bright & left, bright & ~left], -1)
        out[:, 0, 0, 0, 1] = True
        return out.astype(np.float32)

    whole, known = Box((0, 0, 0), (SIDE,) * 3), smallest_pieces(store, store.subjects("train"))
    given = (store, "test", store.spec, whole, spotted)
    kept = evaluate_store(*given, progress=False, distances=True).rows["half_right"]
    cleaned = evaluate_store(*given, progress=False, distances=True, smallest=known).rows["half_right"]
    for before, after in zip(kept, cleaned, strict=True):
        assert after.score.iou > before.score.iou and after.score.predicted_ml < before.score.predicted_ml
