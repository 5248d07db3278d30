"""Domain randomisation against NumPy and SciPy step by step, and on a real head: redrawn, and still that head."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from tlseg_jax.input.randomise import (
    BIAS,
    CONTRAST,
    SCALE,
    SEGMENTS,
    SHIFT,
    STEEPNESS,
    THICKNESS,
    Look,
    apply_look,
    blur_matrix,
    draw_look,
    randomise,
    remap,
    slices_matrix,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHAPE = (12, 16, 14)
one = jax.jit(apply_look)
many = jax.jit(jax.vmap(randomise, in_axes=(0, None)))


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(5), count)


@functools.cache
def patch() -> NDArray[np.float32]:
    """A bright ball in a grey one in dark noise, z-scored and then taken off centre, as a patch of a scan is."""
    at = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1) - np.array(SHAPE) / 2
    radius = np.linalg.norm(at, axis=-1)
    image = 1.0 * (radius < 6) + 1.0 * (radius < 3) + np.random.default_rng(0).normal(0, 0.05, SHAPE)
    return ((image - image.mean()) / image.std() * 0.8 + 0.6).astype(np.float32)


def quiet() -> Look:
    """A look that changes nothing."""
    zero = jnp.zeros(())
    return Look(
        jnp.ones(SEGMENTS),
        jnp.zeros((4, 4, 4)),
        jnp.zeros(3),
        jnp.int32(0),
        jnp.ones(()),
        zero,
        zero,
        jax.random.key(0),
        jnp.ones(()),
        zero,
    )


def replaced(**given: Any) -> Look:
    return Look(**{k: given.get(k, getattr(quiet(), k)) for k in quiet().__dataclass_fields__})


def standardised(v: Any) -> NDArray[Any]:
    v = np.asarray(v, np.float64)
    return (v - v.mean()) / v.std()  # type: ignore[no-any-return]


def test_a_look_that_changes_nothing() -> None:
    np.testing.assert_allclose(one(quiet(), patch()), patch(), atol=1e-5)


def test_the_curve_is_numpys_piecewise_linear_interpolation() -> None:
    rng = np.random.default_rng(1)
    slopes, grey = rng.normal(size=SEGMENTS), rng.uniform(-1, 2, 500)
    knots = np.linspace(0, 1, SEGMENTS + 1)
    heights = np.concatenate([[0], np.cumsum(slopes / SEGMENTS)])
    outside = np.where(grey < 0, slopes[0] * grey, heights[-1] + slopes[-1] * (grey - 1))
    expected = np.where((grey < 0) | (grey > 1), outside, np.interp(grey, knots, heights))
    np.testing.assert_allclose(remap(jnp.asarray(slopes), jnp.asarray(grey)), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.0])
def test_the_blur_is_scipys_away_from_the_edge(sigma: float) -> None:
    v = np.random.default_rng(2).normal(size=40)
    found = np.asarray(blur_matrix(jnp.float32(sigma), 40)) @ v
    expected = scipy.ndimage.gaussian_filter1d(v, sigma, truncate=8) if sigma else v
    np.testing.assert_allclose(found[8:-8], expected[8:-8], atol=2e-2 * sigma + 1e-6)  # SciPy sums to one over taps too
    np.testing.assert_allclose(np.asarray(blur_matrix(jnp.float32(sigma), 40)).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(("thickness", "offset"), [(1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (2.7, 1.9), (1.3, 0.2)])
def test_slices_are_means_and_straight_lines_between_their_centres(thickness: float, offset: float) -> None:
    """Against a finely sampled line: each slice the mean of its extent, np.interp between the centres."""
    size, fine = 24, 200
    v = np.random.default_rng(3).normal(size=size)
    found = np.asarray(slices_matrix(jnp.float32(thickness), jnp.float32(offset), size)) @ v
    inside = np.arange(offset, size - 1, thickness)
    centres = inside[(inside - thickness / 2 >= -0.5) & (inside + thickness / 2 <= size - 0.5)]
    at = (np.arange(size * fine) + 0.5) / fine - 0.5
    line = np.repeat(v, fine)
    means = [line[abs(at - c) < thickness / 2].mean() for c in centres]
    voxels = np.arange(size)
    between = (voxels >= centres[0]) & (voxels <= centres[-1])
    np.testing.assert_allclose(found[between], np.interp(voxels[between], centres, means), atol=0.03)
    if thickness == 1 and offset == 0:
        np.testing.assert_allclose(found, v, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 17])
def test_slices_of_any_thickness_are_weighted_means(size: int) -> None:
    for thickness in np.linspace(1, THICKNESS, 7):
        for offset in np.linspace(0, thickness, 5):
            matrix = np.asarray(slices_matrix(jnp.float32(thickness), jnp.float32(offset), size))
            assert matrix.min() >= -1e-6
            np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)


def test_thick_slices_lie_along_the_axis_drawn() -> None:
    noise = np.random.default_rng(4).normal(size=SHAPE).astype(np.float32)
    for axis in range(3):
        look = replaced(axis=jnp.int32(axis), thickness=jnp.float32(3.0), offset=jnp.float32(1.0))
        out = np.asarray(one(look, noise))
        rough = [np.abs(np.diff(out, axis=a)).mean() / np.abs(np.diff(noise, axis=a)).mean() for a in range(3)]
        assert np.argmin(rough) == axis
        assert rough[axis] < 0.5


def test_the_bias_field_multiplies_and_is_smooth() -> None:
    """Against NumPy: weights that fall with the distance from the coarse points, axis by axis."""
    field = np.random.default_rng(5).uniform(-BIAS, BIAS, (4, 4, 4))
    weights = []
    for size in SHAPE:
        place = (np.arange(size) + 0.5) * 4 / size - 0.5
        w = np.exp(-((place[:, None] - np.arange(4)) ** 2) / (2 * 0.5**2))
        weights.append(w / w.sum(1, keepdims=True))
    wide = np.einsum("xi,yj,zk,ijk->xyz", *weights, field)
    assert np.abs(wide).max() <= BIAS
    assert max(np.abs(np.diff(wide, axis=a)).max() for a in range(3)) < 0.6 * BIAS
    product = (0.5 + CONTRAST * standardised(patch())) * np.exp(wide)
    expected = standardised(product) * patch().std() + patch().mean()
    np.testing.assert_allclose(one(replaced(field=jnp.asarray(field, jnp.float32)), patch()), expected, atol=1e-4)


def test_noise_is_white_and_of_the_size_drawn() -> None:
    noisy = standardised(one(replaced(noise=jnp.float32(0.1)), patch()))
    added = noisy * np.sqrt(1 + 0.1**2) - standardised(patch())
    assert added.std() == pytest.approx(0.1, rel=0.1)
    assert abs(np.corrcoef(added[1:].ravel(), added[:-1].ravel())[0, 1]) < 0.06


def test_drawn_looks_keep_to_their_bounds_and_reach_all_axes() -> None:
    looks = jax.jit(jax.vmap(draw_look))(keys(400))
    slopes = np.abs(np.asarray(looks.slopes))
    assert STEEPNESS[0] <= slopes.min() < slopes.max() <= STEEPNESS[1]
    rising = (np.asarray(looks.slopes) > 0).mean(1)
    assert (rising == 1).mean() > 0.15  # the scan's own order of tissues, near enough
    assert ((rising > 0) & (rising < 1)).mean() > 0.3  # folded
    assert (rising == 0).mean() > 0.01  # inverted
    assert set(np.unique(looks.axis)) == {0, 1, 2}
    assert np.all((np.asarray(looks.thickness) >= 1) & (np.asarray(looks.thickness) <= THICKNESS))
    assert np.all(np.asarray(looks.offset) <= np.asarray(looks.thickness))
    assert np.abs(np.asarray(looks.field)).max() <= BIAS
    assert np.all(np.abs(np.log(np.asarray(looks.scale))) <= np.log(SCALE) + 1e-6)
    assert np.abs(np.asarray(looks.shift)).max() <= SHIFT


def test_the_patch_s_mean_and_deviation_stay_but_for_scale_and_shift() -> None:
    v = patch()
    looks = jax.vmap(draw_look)(keys(16))
    out = np.asarray(jax.jit(jax.vmap(apply_look, in_axes=(0, None)))(looks, v))
    np.testing.assert_allclose(out.mean((1, 2, 3)), v.mean() + np.asarray(looks.shift), atol=0.02)
    np.testing.assert_allclose(out.std((1, 2, 3)), v.std() * np.asarray(looks.scale), rtol=0.02)


@pytest.mark.parametrize("value", [0.0, -0.6, 1e4])
def test_a_patch_of_one_grey_value_stays_finite_and_flat(value: float) -> None:
    out = np.asarray(many(keys(4), np.full(SHAPE, value, np.float32)))
    assert np.isfinite(out).all()
    assert np.ptp(out, axis=(1, 2, 3)).max() < 0.01 * max(1.0, abs(value))
    assert np.abs(out - value).max() < SHIFT + 0.01 * max(1.0, abs(value))


def test_a_real_head_keeps_its_structures_under_every_look() -> None:
    """Voxels alike in grey and near each other stay alike: edges of the redrawn head lie where the head's do."""
    scans = sorted((DATA / "brain_oasis").glob("*_T1w.nii.gz"))
    if not scans:
        pytest.skip("no real scan")
    v = np.asarray(nib.load(scans[0]).dataobj, np.float32)  # type: ignore[attr-defined]
    middle = tuple(slice(n // 2 - 24, n // 2 + 24) for n in v.shape)
    v = ((v - v.mean()) / v.std())[middle]

    def edges(w: Any) -> NDArray[Any]:
        return scipy.ndimage.gaussian_gradient_magnitude(np.asarray(w, np.float64), 1.5).ravel()

    own = edges(v)
    alike = [np.corrcoef(own, edges(w))[0, 1] for w in np.asarray(many(keys(12), v))]
    assert np.median(alike) > 0.5
    assert min(alike) > 0.1
