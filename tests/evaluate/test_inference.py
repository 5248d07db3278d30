"""Boxes and tiles against pointwise predictors, whose result no tiling may change."""

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.evaluate.inference import predict_box, predict_tiles, predict_volume
from tlseg_jax.geometry import Box
from tlseg_jax.runtime.errors import InputError

Patch = NDArray[np.float32]


def pointwise(patches: Patch) -> Patch:
    assert patches.dtype == np.float32
    return (1 / (1 + np.exp(-patches)))[..., None].astype(np.float32)


def noise(*shape: int) -> Patch:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 40, 17), (9, 50, 16), (16, 5, 7)])
@pytest.mark.parametrize("overlap", [0, 0.5, 0.25, 0.7])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_of_a_pointwise_network_give_the_pointwise_result(
    shape: tuple[int, int, int], overlap: float, batch: int
) -> None:
    image = noise(*shape)
    out = predict_tiles(image, (16, 16, 16), pointwise, overlap=overlap, batch=batch)
    assert out.shape == (*shape, 1) and out.dtype == np.float32
    if overlap == 0:
        assert np.array_equal(out, pointwise(image))
    else:
        assert np.abs(out - pointwise(image)).max() < 1e-6


def test_the_papers_tiles_see_no_voxel_twice_and_cover_all() -> None:
    """Each voxel carries its own number, so what the network saw can be counted."""
    image = np.arange(24 * 16 * 20, dtype=np.float32).reshape(24, 16, 20)
    seen: list[Patch] = []

    def record(patches: Patch) -> Patch:
        seen.append(patches.copy())
        return np.zeros_like(patches)[..., None]

    predict_tiles(image, (8, 8, 8), record, overlap=0, batch=1)
    assert len(seen) == 3 * 2 * 3
    whole = [p for p in seen if len(np.unique(p)) == 8**3]
    assert len(whole) == 3 * 2 * 2  # the last row on z reaches past the end and repeats the border
    voxels = np.concatenate([np.unique(p) for p in seen])
    assert len(voxels) == image.size == len(np.unique(voxels))


def test_overlapping_tiles_are_flush_with_the_ends() -> None:
    image = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    starts: list[int] = []

    def record(patches: Patch) -> Patch:
        starts.extend(int(p[0, 0, 0]) for p in patches)
        return np.zeros_like(patches)[..., None]

    predict_tiles(image, (16, 8, 8), record, overlap=0.5, batch=1)
    assert starts[0] == 0 and starts[-1] == 24
    assert max(np.diff(starts)) <= 8


def test_the_network_sees_one_batch_shape_only() -> None:
    shapes: set[tuple[int, ...]] = set()

    def record(patches: Patch) -> Patch:
        shapes.add(patches.shape)
        return pointwise(patches)

    predict_tiles(noise(24, 24, 24), (8, 8, 8), record, overlap=0, batch=4)
    predict_tiles(noise(8, 8, 8), (8, 8, 8), record, batch=4)
    assert shapes == {(4, 8, 8, 8)}


def test_blending_trusts_the_middle_of_a_tile() -> None:
    """A network that is right in the middle of a tile and wrong at its rim."""
    tile = 16
    rim = np.ones((tile,) * 3, np.float32)
    rim[4:-4, 4:-4, 4:-4] = 0

    def position(patches: Patch) -> Patch:
        return np.broadcast_to(rim, patches.shape)[..., None].astype(np.float32)

    image = np.zeros((48, 48, 48), np.float32)
    inner = (slice(8, 40),) * 3
    side_by_side = predict_tiles(image, (tile,) * 3, position, overlap=0)[..., 0]
    gaussian = predict_tiles(image, (tile,) * 3, position)[..., 0]
    # One voxel in 8 lies in its tile's middle; with half overlap one of the eight tiles over a voxel sees it there.
    assert side_by_side[inner].mean() == pytest.approx(7 / 8)
    assert gaussian[inner].mean() < 0.5 * 7 / 8
    # Side by side the error is a jump at every seam; blended it changes slowly.
    assert np.abs(np.diff(side_by_side[24, 24])).max() == 1
    assert np.abs(np.diff(gaussian[24, 24, 8:40])).max() < 0.5


def test_memory_is_one_volume_and_a_batch_of_tiles() -> None:
    image = np.zeros((160, 160, 128), np.float16)
    tile, batch = (32, 32, 32), 2
    tracemalloc.start()
    try:
        predict_tiles(image, tile, lambda p: p[..., None], overlap=0.5, batch=batch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    volume = image.size * 4
    assert volume < peak < volume + 8 * batch * 32**3 * 4 + 1_000_000


def test_a_box_is_predicted_once_and_is_zero_outside() -> None:
    image = noise(20, 20, 20)
    box = Box((4, -2, 10), (8, 8, 16))
    calls: list[tuple[int, ...]] = []

    def count(patches: Patch) -> Patch:
        calls.append(patches.shape)
        return pointwise(patches)

    out = predict_box(image.astype(np.float16), box, count)
    assert calls == [(1, 8, 8, 16)]
    inside = (slice(4, 12), slice(0, 6), slice(10, 20))
    assert np.array_equal(out[inside], pointwise(image.astype(np.float16).astype(np.float32))[inside])
    out[inside] = 0
    assert not out.any()


def test_the_spec_decides_between_box_and_tiles() -> None:
    image = noise(16, 16, 16)
    tiled = get_spec("hdt_wb").changed(patch_size=(8, 8, 8))
    fixed = get_spec("hdt_c")
    assert np.array_equal(predict_volume(image, tiled, None, pointwise, "paper"), pointwise(image))
    assert np.allclose(predict_volume(image, tiled, None, pointwise), pointwise(image), atol=1e-6)
    out = predict_volume(image, fixed, Box((0, 0, 0), (8, 8, 8)), pointwise)
    assert out[:8, :8, :8].all() and not out[8:].any()


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_predicted_is_said_in_one_sentence() -> None:
    image = noise(16, 16, 16)
    with pytest.raises(InputError, match="there is none"):
        predict_volume(image, get_spec("hdt_c"), None, pointwise)
    with pytest.raises(InputError, match="no tiles called 'gauss'"):
        predict_volume(image, get_spec("hdt_wb"), None, pointwise, "gauss")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="misses the volume"):
        predict_box(image, Box((16, 0, 0), (8, 8, 8)), pointwise)
    with pytest.raises(InputError, match="not a number"):
        predict_box(image, Box((0, 0, 0), (8, 8, 8)), lambda p: p[..., None] * np.float32(np.nan))
    with pytest.raises(ValueError, match="the predictor returned"):
        predict_box(image, Box((0, 0, 0), (8, 8, 8)), lambda p: p[..., 0])
