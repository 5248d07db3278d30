"""Passes of a scan are averaged as NumPy averages them, and no network is averaged that must not be."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import AdaptingPredictor, predict_volume
from tlseg_jax.evaluate.tta import averaged, averages
from tlseg_jax.geometry import Box

SIDES = (6, 5, 4)


@pytest.fixture
def two_sides() -> DatasetSpec:
    """Left and right of a structure, mirrored in training."""
    names = ("part_left", "part_right")
    return get_spec("hdt_c").changed(structures=names, mirror_pairs=(names,))


def network(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers by the grey value and by the place, otherwise on each side."""
    place = np.arange(np.prod(patches.shape[1:])).reshape(patches.shape[1:]) / 100
    return np.stack([patches + place, 2 * patches - place], -1).astype(np.float32)


def test_the_mean_is_numpys_over_the_four(two_sides: DatasetSpec) -> None:
    patches = np.random.default_rng(0).normal(size=(2, *SIDES)).astype(np.float32)
    found = averaged(network, two_sides)(patches)

    def moved(a: NDArray[Any], by: int) -> NDArray[Any]:
        """As `np.roll` moves it; the border is left to others."""
        return np.roll(a, (by, by, by), (1, 2, 3))

    def back(a: NDArray[Any]) -> NDArray[Any]:
        """From the mirror: the sides change places."""
        return np.flip(a, 1)[..., ::-1]

    mirror = np.flip(patches, 1)
    passes = [network(patches), back(network(mirror)), moved(network(moved(patches, 1)), -1)]
    passes.append(back(moved(network(moved(mirror, -1)), 1)))
    inside = (slice(None), *[slice(1, -1)] * 3)
    np.testing.assert_allclose(found[inside], np.mean(passes, 0)[inside], rtol=1e-5)
    assert found.shape == (2, *SIDES, 2) and found.dtype == np.float32
    assert np.abs(found - network(patches)).max() > 0.1


def test_what_was_never_mirrored_is_moved_alone_and_slices_are_asked_once(two_sides: DatasetSpec) -> None:
    calls: list[Any] = []

    def counting(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        calls.append(patches)
        return network(patches)

    patches = np.ones((1, *SIDES), np.float32)
    averaged(counting, two_sides.changed(flip_left_right=False))(patches)
    assert len(calls) == 2
    averaged(counting, two_sides)(patches)
    assert len(calls) == 2 + 4
    assert averaged(counting, get_spec("lits")) is counting


def test_a_network_that_adapts_does_so_to_the_scan_as_it_is_and_is_averaged_with_that(two_sides: DatasetSpec) -> None:
    image = np.random.default_rng(1).normal(size=SIDES).astype(np.float32)
    seen: list[Any] = []

    def see(rows: NDArray[np.float32], weights: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        del weights
        return network(rows) / 100, float(rows.mean())

    def fixed(parts: list[float], weights: list[float]) -> Any:
        seen.append((parts, weights))
        return lambda rows: 1 / (1 + np.exp(-network(rows - parts[0])))

    adapting, box = AdaptingPredictor(see, fixed), Box((0, 0, 0), SIDES)
    spec = two_sides.changed(random_patch=False)
    found = predict_volume(image, spec, box, averaged(adapting, spec))
    assert seen == [([float(image[None].mean())], [1.0])]
    plain = predict_volume(image, spec, box, averaged(fixed([float(image.mean())], [1.0]), spec))
    np.testing.assert_allclose(found, plain, atol=1e-6)
    assert dataclasses.replace(adapting).again is False


def test_the_papers_models_are_asked_once() -> None:
    assert averages({"smallest_pieces": {"caudate": 0.1}}) and not averages({})
