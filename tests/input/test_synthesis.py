"""Images drawn from label maps: that image and codes are of one deformed head, and what the scanner makes of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.input.label_heads import CAUDATE, CORTEX, SCALP, VALUES, VENTRICLE, WHITE, label_head
from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.datasets.structures import Labels
from tlseg_jax.input.augment import augmentation_for, mirrors
from tlseg_jax.input.synthesis import atrophy, deformation, draw, scanner
from tlseg_jax.input.synthesis.classes import ClassTable, class_table, numbered
from tlseg_jax.input.synthesis.draw import Synthesis
from tlseg_jax.input.synthesis.ranges import TRAINING, Ranges, grey_values
from tlseg_jax.train.step import batch_inputs

pytestmark = pytest.mark.usefixtures("quick_compile")
BOTH = Labels(("caudate_left", "caudate_right"), ((CAUDATE[0],), (CAUDATE[1],)))
ONE = Labels(("caudate",), (CAUDATE,))


def classes_of(values: np.ndarray, table: ClassTable) -> np.ndarray:
    found, places = np.unique(values, return_inverse=True)
    return np.array(numbered(found.tolist(), table), np.uint8)[places].reshape(values.shape)


def synthesis_of(labels: Labels, **changes: Any) -> Synthesis:
    given: dict[str, Any] = {"sides": (24, 24, 24), "spacing": (2.0, 2.0, 2.0), "factor": (2, 2, 2)} | changes
    return Synthesis(table=class_table(VALUES, labels), structures=len(labels.structures), **given)


drawn = jax.jit(draw.draw_batch, static_argnums=4)


def batch_of(synthesis: Synthesis, rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A head in its margin, and each class's share of it."""
    (margin, *_), (side, *_) = synthesis.margin, synthesis.map_sides
    classes = np.pad(classes_of(label_head(side - 2 * margin), synthesis.table), margin)
    shares = np.bincount(classes.ravel(), minlength=len(synthesis.table.values)) / classes.size
    return np.stack([classes] * rows), np.stack([shares.astype(np.float32)] * rows)


def test_sides_share_a_grey_value_and_what_a_voxel_is_goes_by_order() -> None:
    table = class_table(VALUES | {137}, BOTH)
    place = {v: i for i, v in enumerate(table.values)}
    assert place[0] == 0 and set(place) == VALUES | {137}
    for left, right in (WHITE, CORTEX, VENTRICLE, CAUDATE):
        assert table.groups[place[left]] == table.groups[place[right]]
    assert len(set(table.groups)) == len(VALUES | {137}) - 5
    assert {v for v in place if table.ventricles <= place[v] < table.fluid} == {*VENTRICLE, 137}
    assert [v for v in place if table.fluid <= place[v] < table.outside] == [24]
    assert [v for v in place if place[v] >= table.outside] == [SCALP]
    assert {v: table.codes[i] for v, i in place.items() if table.codes[i]} == {CAUDATE[0]: 1, CAUDATE[1]: 2}
    unknown = class_table({0, 1, 2, 3, 700}, Labels(("a",), ((700,),)))
    assert unknown.groups == (0, 1, 2, 3, 4) and unknown.ventricles == unknown.outside == 5
    assert unknown.codes == (0, 0, 0, 0, 1) and set(unknown.t1) == {(-1.0, -1.0)}


def test_averaging_down_is_the_mean_of_blocks() -> None:
    fine = np.random.default_rng(0).random((6, 4, 9), np.float32)
    blocks = fine.reshape(3, 2, 4, 1, 3, 3).mean((1, 3, 5))
    np.testing.assert_allclose(draw.averaged(jnp.asarray(fine), (2, 1, 3)), blocks, rtol=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_voxel_is_of_the_structure_that_fills_half_of_it(exclusive: bool) -> None:
    labels = (
        Labels(("a", "b"), ((5, 6), (6, 7)), exclusive=False) if not exclusive else Labels(("a", "b"), ((5,), (6,)))
    )
    synthesis = Synthesis(class_table({0, 5, 6, 7}, labels), (8, 8, 8), (2.0,) * 3, (2, 2, 2), 2, exclusive)
    moved = np.random.default_rng(0).integers(0, 4, (16, 16, 16)).astype(np.uint8)
    found = np.asarray(draw.codes_of(jnp.asarray(moved), synthesis))
    blocks = moved.reshape(8, 2, 8, 2, 8, 2).transpose(0, 2, 4, 1, 3, 5).reshape(512, 8)
    for code, block in zip(found.ravel(), blocks, strict=True):
        if exclusive:
            a, b = (block == 1).sum(), (block == 2).sum()
            assert code == (0 if a + b < 4 else 1 if a >= b else 2)
        else:
            assert code == (np.isin(block, (1, 2)).sum() >= 4) + 2 * (np.isin(block, (2, 3)).sum() >= 4)


def test_codes_lie_where_the_image_shows_the_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one bright structure and a scanner that does nothing, the image cut at its half is the label."""
    nothing = (0.0, 0.0)
    still = Ranges(stripped=0, thinned=0, bias=nothing, gamma=0, blur_mm=nothing, thick_share=0, noise=nothing)
    synthesis = synthesis_of(ONE, ranges=still)
    bright = jnp.asarray(synthesis.table.codes, jnp.float32)
    monkeypatch.setattr(draw, "grey_values", lambda key, table, ranges: (bright, jnp.zeros_like(bright)))
    classes, shares = batch_of(synthesis, 4)
    image, codes = jax.jit(lambda c, s: draw.draw_batch(c, s, 0, 0, synthesis))(classes, shares)
    there = set()
    for one, code in zip(np.asarray(image), np.asarray(codes), strict=True):
        np.testing.assert_array_equal(one > (one.min() + one.max()) / 2 - 1e-4, code == 1)
        there.add(code.tobytes())
        assert 30 < code.sum() < 400
    assert len(there) == 4  # each sample of a map has a shape of its own


def test_the_same_key_draws_the_same_sample_and_another_another() -> None:
    synthesis = synthesis_of(ONE)
    classes, shares = (jnp.asarray(a) for a in batch_of(synthesis, 2))
    images, codes = drawn(classes, shares, 3, 5, synthesis)
    assert np.isfinite(images).all() and not np.array_equal(images[0], images[1])
    again = drawn(classes[1:], shares[1:], 3, 5, synthesis, 1)
    np.testing.assert_allclose(again[0][0], images[1], atol=1e-5)
    np.testing.assert_array_equal(again[1][0], codes[1])
    for seed, step in ((4, 5), (3, 6)):
        other, _ = drawn(classes[:1], shares[:1], seed, step, synthesis)
        assert abs(np.asarray(other[0]) - images[0]).mean() > 0.05


def test_no_deformation_gives_the_map_back() -> None:
    sides = (10, 12, 9)
    volume = np.random.default_rng(0).integers(0, 50, sides).astype(np.uint8)
    at = deformation.places(jax.random.key(0), sides, (1.0, 1.5, 2.0), wide=0.0)
    np.testing.assert_array_equal(deformation.nearest(jnp.asarray(volume), at, sides), volume)


def test_voxels_are_looked_up_where_scipy_does() -> None:
    sides = (16, 20, 12)
    volume = np.random.default_rng(0).integers(0, 200, (24, 22, 18)).astype(np.uint8)
    at = np.asarray(deformation.places(jax.random.key(1), sides, (1.0, 1.0, 1.0))) + 3
    fine = np.stack(np.meshgrid(*[np.arange(n) / deformation.CELL for n in sides], indexing="ij"))
    where = np.stack([ndimage.map_coordinates(a, fine, order=1) for a in at])
    expected = ndimage.map_coordinates(volume, where, order=0, mode="nearest")
    found = np.asarray(deformation.nearest(jnp.asarray(volume), jnp.asarray(at), sides))
    assert (found == expected).mean() > 0.999  # but for places that lie half way, by rounding


def test_a_deformation_never_folds() -> None:
    sides = (96, 80, 64)
    places = jax.jit(lambda key: deformation.places(key, sides, (1.0, 1.0, 1.0)))
    reached = []
    for key in jax.random.split(jax.random.key(0), 20):
        at = np.asarray(places(key))
        slopes = [np.gradient(a, deformation.CELL) for a in at]
        jacobian = np.linalg.det(np.moveaxis(np.array(slopes), (0, 1), (-2, -1)))
        assert jacobian.min() > 0.05
        middle = np.stack(np.meshgrid(*[deformation.CELL * np.arange(n) for n in at.shape[1:]], indexing="ij"))
        reached.append(abs(at - middle).max())
    assert 5 < np.mean(reached) < 30


def widened(ventricles: float, surface: float) -> tuple[np.ndarray, np.ndarray, ClassTable]:
    """A head's classes before and after."""
    table = class_table(VALUES, ONE)
    before = classes_of(label_head(48), table)
    hollow = jnp.asarray((before >= table.ventricles) & (before < table.fluid))
    field = atrophy.displacement(hollow, (1.0,) * 3, jnp.float32(ventricles))
    at = deformation.places(jax.random.key(0), before.shape, (1.0,) * 3, wide=0.0)
    after = deformation.nearest(jnp.asarray(before), at + atrophy.looked_up(field, at), before.shape)
    return before, np.asarray(atrophy.sulci(after, table, (2, 2, 2), jnp.float32(surface))), table


def test_atrophy_widens_the_ventricles_within_the_same_brain() -> None:
    for mm, low, high in ((3.0, 1.25, 3.0), (-2.0, 0.3, 0.9)):
        before, after, table = widened(mm, 0.0)
        hollow = [(v >= table.ventricles) & (v < table.fluid) for v in (before, after)]
        assert low < hollow[1].sum() / hollow[0].sum() < high
        assert (hollow[1] & hollow[0]).sum() == min(h.sum() for h in hollow)  # the one lies within the other
        brain = [(v >= 1) & (v < table.fluid) for v in (before, after)]
        assert 2 * (brain[0] & brain[1]).sum() / (brain[0].sum() + brain[1].sum()) > 0.995


def test_sulci_widen_and_narrow_by_parts_of_a_voxel_and_the_head_stays() -> None:
    table = class_table(VALUES, ONE)
    before = classes_of(label_head(48), table)
    cross = ndimage.generate_binary_structure(3, 1)

    def parts(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (volume >= 1) & (volume < table.fluid), (volume >= table.fluid) & (volume < table.outside)

    brain, fluid = parts(before)
    for share in (1.0, -1.0, 0.5, 0.0):
        after = np.asarray(atrophy.sulci(jnp.asarray(before), table, (2, 2, 2), jnp.float32(share)))
        other = before >= table.outside
        np.testing.assert_array_equal(after[other | (before == 0)], before[other | (before == 0)])
        edge = brain & ndimage.binary_dilation(fluid, cross)
        if share == 1:
            np.testing.assert_array_equal(parts(after)[0], brain & ~edge)
        elif share == -1:
            grown = brain | (fluid & ndimage.binary_dilation(brain, cross))
            np.testing.assert_array_equal(parts(after)[0], grown)
            assert set(np.unique(after[grown & ~brain])) <= {table.values.index(v) for v in CORTEX}
        else:
            assert (brain & ~parts(after)[0]).sum() == pytest.approx(share * edge.sum(), rel=0.1)


def test_left_and_right_change_places_in_a_mirror() -> None:
    spec = DatasetSpec(
        "drawn",
        BOTH.structures,
        VolumeGrid("native", (24,) * 3, (2.0,) * 3, (24,) * 3, train_count=1),
        label_values=BOTH.values,
    )
    synthesis = synthesis_of(BOTH)
    classes, shares = batch_of(synthesis, 6)
    batch = {"classes": classes, "shares": shares, "label": np.zeros((6, 24, 24, 24), np.uint8)}
    plain, flipped = (
        jax.jit(
            batch_inputs(augmentation_for(spec.changed(flip_left_right=f), intensity=False, affine=False), synthesis)
        )
        for f in (False, True)
    )
    (image, label), (other, mirror) = plain(batch, 2, 7), flipped(batch, 2, 7)
    turned = np.asarray(mirrors(7, 2, 6))
    assert 0 < turned.sum() < 6 and image.shape == (6, 24, 24, 24, 1)
    for i, is_mirror in enumerate(turned):
        step = -1 if is_mirror else 1
        np.testing.assert_allclose(other[i], image[i, ::step], atol=1e-5)
        expected = np.array([0, 2, 1] if is_mirror else [0, 1, 2])[np.asarray(label[i, ::step])]
        np.testing.assert_array_equal(mirror[i], expected)
        x = [np.argwhere(np.asarray(mirror[i]) == code)[:, 0].mean() for code in (1, 2)]
        assert x[0] < x[1]  # left stays at low x


def test_a_patch_is_scored_by_the_whole_volume_it_is_of() -> None:
    values = np.random.default_rng(0).integers(0, 4, (12, 12, 12))
    means, weights = np.array([0.0, 0.2, 0.9, 0.5], np.float32), np.bincount(values.ravel()).astype(np.float32)
    volume = means[values]
    patch = volume[2:6, 1:9, 4:10]
    found = scanner.standardised(jnp.asarray(patch), jnp.asarray(means), jnp.asarray(weights))
    np.testing.assert_allclose(found, (patch - volume.mean()) / volume.std(), atol=1e-4)


def test_drawn_heads_have_the_statistics_of_whole_volumes() -> None:
    """Of a sample that is the whole head, stripped or not, the z-score is nearly its own."""
    synthesis = synthesis_of(ONE)
    margin = synthesis.margin[0]
    classes, _ = batch_of(synthesis, 8)
    inner = classes[0, margin:-margin, margin:-margin, margin:-margin]
    shares = np.bincount(inner.ravel(), minlength=len(synthesis.table.values)).astype(np.float32) / inner.size
    images, _ = drawn(classes, np.stack([shares] * 8), 0, 0, synthesis)
    means, deviations = np.asarray(images).mean((1, 2, 3)), np.asarray(images).std((1, 2, 3))
    assert abs(np.median(means)) < 0.25 and 0.7 < np.median(deviations) < 1.3


def test_a_strip_keeps_the_brain_and_takes_the_scalp() -> None:
    table = class_table(VALUES, ONE)
    moved = classes_of(label_head(48), table)
    brain = draw.averaged(jnp.asarray((moved >= 1) & (moved < table.fluid)), (2, 2, 2))
    head = np.asarray(draw.averaged(jnp.asarray(moved >= table.outside), (2, 2, 2)))
    kept = jax.jit(lambda key: scanner.kept(key, brain, (2.0,) * 3, True))
    for key in jax.random.split(jax.random.key(0), 10):
        keep = np.asarray(kept(key))
        assert (keep >= 0).all() and (keep <= 1).all()
        assert keep[np.asarray(brain) == 1].mean() > 0.85 and keep[head == 1].mean() < 0.2
        assert keep[0].max() == 0


def test_half_of_the_contrasts_are_a_t1_scans() -> None:
    table = class_table(VALUES, ONE)
    place = {v: i for i, v in enumerate(table.values)}
    means, within = jax.vmap(lambda k: grey_values(k, table))(jax.random.split(jax.random.key(0), 400))
    white, grey, fluid = (np.asarray(means[:, place[v]]) for v in (WHITE[0], CORTEX[0], VENTRICLE[0]))
    assert 0.5 < np.mean((white > grey) & (grey > fluid)) < 0.75  # and a sixth of the others by chance
    np.testing.assert_array_equal(means[:, place[WHITE[0]]], means[:, place[WHITE[1]]])
    assert (means[:, 0] <= TRAINING.air).all() and (np.asarray(within) >= 0).all()
    scalp = np.asarray(means[:, place[SCALP]])
    assert scalp.min() < 0.1 and scalp.max() > 0.9  # of what no table knows any grey value is as likely


def test_margins_hold_what_a_deformation_may_bring_in() -> None:
    for factor in ((1, 1, 1), (2, 2, 2), (3, 1, 2)):
        synthesis = synthesis_of(ONE, factor=factor, spacing=tuple(float(f) for f in factor))
        for margin, f, s in zip(synthesis.margin, factor, synthesis.spacing, strict=True):
            assert margin % f == 0 and margin * s / f >= draw.MARGIN_MM
        assert all(n % atrophy.POOL == 0 for n in synthesis.map_sides)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [(1, 1, 1), (3, 1, 2)])
def test_any_grid_can_be_drawn_on_and_overlapping_structures(factor: tuple[int, int, int]) -> None:
    """Structures that contain each other, voxels that are longer one way, a z-score over the head."""
    labels = Labels(("brain", "white matter"), ((*WHITE, *CORTEX), WHITE), exclusive=False)
    spacing = tuple(float(f) for f in factor)
    synthesis = synthesis_of(
        labels, sides=(16, 48, 24), factor=factor, spacing=spacing, exclusive=False, skull_strip=True, normalise="mask"
    )
    inner = [n * f for n, f in zip(synthesis.sides, factor, strict=True)]
    head = label_head(48)[tuple(slice((48 - n) // 2, (48 + n) // 2) for n in inner)]
    classes = np.pad(classes_of(head, synthesis.table), [(m, m) for m in synthesis.margin])
    assert classes.shape == synthesis.map_sides
    shares = np.bincount(classes.ravel(), minlength=len(synthesis.table.values)).astype(np.float32) / classes.size
    images, codes = (np.asarray(a) for a in drawn(classes[None], shares[None], 0, 1, synthesis))
    assert images.shape == codes.shape == (1, *synthesis.sides) and np.isfinite(images).all()
    assert set(np.unique(codes)) == {0, 1, 3}  # white matter is brain as well
    inside = images[codes > 0]
    assert abs(np.median(inside)) < 1 and 0.3 < inside.std() < 3
