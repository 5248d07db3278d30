"""The contour figure: colours, orientation and which subjects are shown."""

import dataclasses
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from numpy.typing import NDArray

from tlseg_jax.figures.contours import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    ContourCase,
    draw_contours,
    outline,
    pick_cases,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHAPE = (40, 48, 30)


def case(predicted: tuple[slice, ...] | None, reference: tuple[slice, ...] | None) -> ContourCase:
    """A grey ball; masks from slices of RAS voxels."""
    at = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    image = (np.linalg.norm(at - np.array(SHAPE) / 2, axis=-1) < 18).astype(np.float32)
    masks = []
    for where in (predicted, reference):
        mask = np.zeros(SHAPE, bool)
        if where is not None:
            mask[where] = True
        masks.append(mask)
    affine = np.array([[1.5, 0, 0, -30], [0, 1.0, 0, -24], [0, 0, 2.0, -30], [0, 0, 0, 1]])
    return ContourCase("best", "sub-1", 0.5, image, masks[0], masks[1], affine)


def count(path: Path, colour: str) -> int:
    """Pixels of one of the paper's colours above the legend."""
    pixels = imread(path)
    pixels = pixels[: -int(0.3 * 200), :, :3]
    return int((np.abs(pixels - np.array(to_rgb(colour))).max(-1) < 0.1).sum())


BOX = (slice(15, 22), slice(20, 30), slice(10, 20))
MOVED = (slice(18, 25), slice(20, 30), slice(10, 20))


def test_agreement_is_red_alone_and_each_error_has_its_colour(tmp_path: Path) -> None:
    out = tmp_path / "new" / "c.png"
    for predicted, reference, seen in (
        (BOX, BOX, {TRUE_POSITIVE}),
        (None, BOX, {FALSE_NEGATIVE}),
        (BOX, None, {FALSE_POSITIVE}),
        (MOVED, BOX, {TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE}),
        (None, None, set()),
    ):
        draw_contours([case(predicted, reference)], out)
        found = {c for c in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE) if count(out, c) > 50}
        assert found == seen
    assert [p.name for p in out.parent.iterdir()] == ["c.png"]


def test_the_subjects_right_is_on_the_left(tmp_path: Path) -> None:
    """x runs from left to right in RAS: a structure at high x is drawn further left than its mirror image."""
    first = {}
    for side, x in (("right", slice(30, 34)), ("left", slice(6, 10))):
        out = tmp_path / f"{side}.png"
        draw_contours([case(None, (x, slice(20, 30), slice(10, 20)))], out, slices=1)
        green = np.abs(imread(out)[..., :3] - np.array(to_rgb(FALSE_NEGATIVE))).max(-1) < 0.1
        # The whole slice is the first panel from the left.
        first[side] = int(np.flatnonzero(green[: -int(0.3 * 200)].any(0)).min())
    assert first["right"] < first["left"]


@pytest.mark.parametrize("codes", ["LAS", "LPS", "LIA", "PSR"])
def test_the_picture_does_not_depend_on_how_the_voxels_are_stored(tmp_path: Path, codes: str) -> None:
    plain = case(MOVED, BOX)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))

    def stored(volume: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.asarray(nib.orientations.apply_orientation(volume, turn))

    turned = dataclasses.replace(
        plain,
        image=stored(plain.image),
        predicted=stored(plain.predicted),
        reference=stored(plain.reference),
        affine=plain.affine @ nib.orientations.inv_ornt_aff(turn, SHAPE),
    )
    assert nib.aff2axcodes(turned.affine) == tuple(codes)
    draw_contours([plain], tmp_path / "a.png")
    draw_contours([turned], tmp_path / "b.png")
    assert np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


def test_an_outline_has_every_edge_once() -> None:
    mask = np.zeros((6, 5), bool)
    mask[1:4, 2:4] = True  # 3 by 2 voxels
    mask[5, 0] = True  # at the border
    edges = outline(mask, (2.0, 1.0))
    lengths = np.abs(edges[:, 1] - edges[:, 0]).sum(-1)
    assert lengths.sum() == pytest.approx(2 * (3 * 2 + 2 * 1) + 2 * (2 + 1))
    assert len(np.unique(edges.reshape(-1, 4), axis=0)) == len(edges) == 10 + 4
    assert edges[..., 0].min() == 2 and edges[..., 0].max() == 12
    # Random masks: as many edges as there are pairs of neighbours that differ.
    mask = np.random.default_rng(0).random((20, 30)) > 0.5
    padded = np.pad(mask, 1).astype(int)
    assert len(outline(mask, (1, 1))) == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert outline(np.zeros((3, 3), bool), (1, 1)).shape == (0, 2, 2)


def test_cases_are_real_subjects_and_never_repeat() -> None:
    scores = {"d": 0.1, "a": 0.9, "c": 0.4, "b": 0.5}
    assert pick_cases(scores) == {"best": "a", "median": "c", "worst": "d"}
    assert pick_cases({"x": 0.5, "y": 0.5, "z": 0.5}) == {"best": "x", "median": "y", "worst": "z"}
    assert pick_cases({"x": 0.1, "y": 0.2}) == {"best": "y", "worst": "x"}
    assert pick_cases({"x": 0.1}) == {"only subject": "x"}
    assert pick_cases({}) == {}


def test_drawing_leaves_matplotlibs_settings_alone_and_repeats_exactly(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    for name in ("a.png", "b.png"):
        draw_contours([case(MOVED, BOX)], tmp_path / name, heading="hdt_c", mark="synthetic")
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    draw_contours([case(MOVED, BOX)], tmp_path / "c.png", heading="hdt_c")
    assert (imread(tmp_path / "a.png") != imread(tmp_path / "c.png")).any()


def test_a_prediction_far_away_does_not_shrink_the_view(tmp_path: Path) -> None:
    """The close view follows the reference; what lies beyond it is told in words."""
    far = case(BOX, BOX)
    far.predicted[1, 1, 1] = True
    draw_contours([far], tmp_path / "far.png")
    draw_contours([case(BOX, BOX)], tmp_path / "near.png")
    assert imread(tmp_path / "far.png").shape == imread(tmp_path / "near.png").shape


def test_three_real_scans_are_drawn(tmp_path: Path) -> None:
    folder = DATA / "brain_oasis"
    if not folder.exists():
        pytest.skip("the real scans are not here")
    cases = []
    for title, subject, shift in (("best", "sub-1000", 0), ("median", "sub-1006", 1), ("worst", "sub-1036", 4)):
        image = nib.load(folder / f"{subject}_T1w.nii.gz")
        label = np.isin(np.asarray(nib.load(folder / f"{subject}_labels.nii.gz").dataobj), (36, 37))
        moved = np.roll(label, shift, 0)
        iou = (label & moved).sum() / (label | moved).sum()
        cases.append(
            ContourCase(title, subject, iou, np.asarray(image.dataobj, np.float32), moved, label, image.affine)
        )
    draw_contours(cases, tmp_path / "c.png", heading="hdt_c")
    pixels = imread(tmp_path / "c.png")
    assert pixels.shape[0] > 1000 and pixels.shape[1] > 1200
    assert all(count(tmp_path / "c.png", c) > 500 for c in (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE))
