"""What the viewer shows is taken apart again and compared with the masks that went in."""

import io
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tlseg_jax.figures.contours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.report.page.viewer import MAX_BYTES, Viewer, ViewerCase, make_viewer, png_parts, reachable

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def head(side: int = 40, mm: float = 2.0, seed: int = 0) -> ViewerCase:
    """A bright ball with a truth on the subject's right, and a prediction moved by two voxels to the front."""
    at = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1) - side / 2
    rng = np.random.default_rng(seed)
    image = (np.linalg.norm(at, axis=-1) < 0.4 * side) * 3 + rng.normal(0, 0.05, (side,) * 3)
    reference = np.zeros((side,) * 3, bool)
    reference[24:30, 16:24, 18:23] = True
    predicted = np.roll(reference, 2, axis=1)
    return ViewerCase(
        "Worst",
        "sub-1 by HDT-V-FT.",
        "sub-1",
        image.astype(np.float32),
        reference,
        predicted,
        np.diag([mm, mm, mm, 1.0]),
    )


def overlay(viewer: Viewer) -> NDArray[np.uint8]:
    """(x, y, z, RGBA) of the overlay, x from the subject's right to the left, cut out of nilearn's sheet of slices."""
    sheet = np.array(Image.open(io.BytesIO(png_parts(viewer.document)[2])).convert("RGBA"))
    found = re.search(r'"nbSlice": {"X": (\d+), "Y": (\d+), "Z": (\d+)}', viewer.document)
    assert found is not None
    x, y, z = (int(n) for n in found.groups())
    columns = sheet.shape[1] // y
    tiles = [sheet[i // columns * z :, i % columns * y :][:z, :y] for i in range(x)]
    return np.stack([t[::-1].swapaxes(0, 1) for t in tiles])


def count(pixels: NDArray[np.uint8], colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int(((np.abs(pixels[..., :3].astype(int) - rgb).max(-1) <= 1) & (pixels[..., 3] > 0)).sum())


def test_the_overlay_holds_each_voxel_of_the_masks_in_its_colour() -> None:
    case = head()
    pixels = overlay(make_viewer(case))
    assert count(pixels, TRUE_POSITIVE) == int((case.reference & case.predicted).sum()) == 6 * 6 * 5
    assert count(pixels, FALSE_NEGATIVE) == int((case.reference & ~case.predicted).sum()) == 6 * 2 * 5
    assert count(pixels, FALSE_POSITIVE) == int((case.predicted & ~case.reference).sum()) == 6 * 2 * 5
    assert int((pixels[..., 3] > 0).sum()) == int((case.reference | case.predicted).sum())


def test_the_subjects_right_comes_first() -> None:
    case = head()
    viewer = make_viewer(case)
    pixels = overlay(viewer)[..., 3] > 0
    x, y, z = viewer.start
    shown = pixels.nonzero()
    assert shown[0].max() < pixels.shape[0] / 2
    assert pixels[x].any() and pixels[:, y].any() and pixels[:, :, z].any()
    heights = [float(p.split()[2]) for p in (viewer.places[shown[2].min()], viewer.places[shown[2].max()])]
    assert heights == [18 * 2, 22 * 2]
    # The truth lies behind the prediction: what was missed is nearer to the back, which comes first on y.
    missed = (overlay(viewer)[..., 1] > 200).nonzero()[1]
    false = (overlay(viewer)[..., 2] > 200).nonzero()[1]
    assert missed.max() < false.min()


@pytest.mark.parametrize("axes", ["LAS", "RPI", "SRA", "PIL"])
def test_orientation_changes_nothing_but_the_way_there(axes: str) -> None:
    case = head()
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(case.affine), nib.orientations.axcodes2ornt(axes)
    )
    image, reference, predicted = (
        nib.orientations.apply_orientation(v, turn) for v in (case.image, case.reference, case.predicted)
    )
    affine = case.affine @ nib.orientations.inv_ornt_aff(turn, case.image.shape)
    turned = make_viewer(ViewerCase(case.title, case.caption, case.subject, image, reference, predicted, affine))
    straight = make_viewer(case)
    assert png_parts(turned.document) == png_parts(straight.document)
    assert (turned.places, turned.start) == (straight.places, straight.start)


def test_a_large_scan_is_made_small_and_says_so() -> None:
    case = head(120, 1.0)
    noise = np.random.default_rng(1).normal(0, 1, case.image.shape).astype(np.float32)
    truth = np.zeros_like(case.reference)
    truth[10:20, 10:20, 10:20] = truth[100:110, 100:110, 100:110] = True
    viewer = make_viewer(ViewerCase("Best", "Text.", "sub-2", case.image + noise, truth, truth, case.affine))
    assert len(viewer.document) <= MAX_BYTES
    assert "Shown with voxels of" in viewer.caption and viewer.caption.startswith("Text.")
    mm = float(viewer.caption.split("voxels of ")[1].split(" mm")[0])
    assert count(overlay(viewer), TRUE_POSITIVE) * mm**3 == pytest.approx(2000, rel=0.2)


def test_a_large_scan_comes_closer_before_its_voxels_grow() -> None:
    case = head(120, 1.0)
    noise = np.random.default_rng(1).normal(0, 1, case.image.shape).astype(np.float32)
    viewer = make_viewer(ViewerCase("Best", "", "s", case.image + noise, case.reference, case.predicted, case.affine))
    assert viewer.caption == "" and len(viewer.places) < 70
    assert count(overlay(viewer), TRUE_POSITIVE) == 6 * 6 * 5


def test_thick_slices_become_even_voxels() -> None:
    case = head()
    thick = ViewerCase(
        "Best",
        "",
        "sub-3",
        case.image[:, :, ::4],
        case.reference[:, :, ::4],
        case.predicted[:, :, ::4],
        np.diag([2.0, 2.0, 8.0, 1.0]),
    )
    viewer = make_viewer(thick)
    assert 30 <= len(viewer.places) <= 40
    found = count(overlay(viewer), TRUE_POSITIVE)
    assert found == pytest.approx(4 * (thick.reference & thick.predicted).sum(), rel=0.01)


def test_slices_that_are_no_neighbours_stay_single() -> None:
    case = head()
    some = [3, 17, 20, 22, 39]
    stack = ViewerCase(
        "Best",
        "",
        "v-1",
        case.image[..., some],
        case.reference[..., some],
        case.predicted[..., some],
        np.diag([2.0, 2.0, 7.7, 1.0]),
        stack=True,
        numbers=(4, 18, 21, 23, 40),
    )
    viewer = make_viewer(stack)
    assert viewer.places == tuple(f"slice {n} ({i} of 5)" for i, n in enumerate((4, 18, 21, 23, 40), 1))
    assert viewer.start[2] in (2, 3) and "no neighbours" in viewer.caption
    assert count(overlay(viewer), TRUE_POSITIVE) == 2 * 6 * 6


@pytest.mark.parametrize("empty", ["predicted", "reference", "both"])
def test_masks_may_be_empty(empty: str) -> None:
    case = head()
    none = np.zeros_like(case.reference)
    reference = none if empty in ("reference", "both") else case.reference
    predicted = none if empty in ("predicted", "both") else case.predicted
    viewer = make_viewer(ViewerCase("t", "", "s", case.image, reference, predicted, case.affine))
    assert int((overlay(viewer)[..., 3] > 0).sum()) == int((reference | predicted).sum())


def test_a_flat_image_is_shown() -> None:
    case = head()
    flat = ViewerCase("t", "", "s", np.zeros_like(case.image), case.reference, case.predicted, case.affine)
    assert count(overlay(make_viewer(flat)), TRUE_POSITIVE) == 6 * 6 * 5


def test_shapes_must_agree_and_another_nilearn_is_noticed() -> None:
    case = head()
    with pytest.raises(ValueError, match="of one shape"):
        ViewerCase("t", "", "s", case.image, case.reference[1:], case.predicted, case.affine)
    with pytest.raises(RuntimeError, match="pin nilearn"):
        reachable("<html><head></head><body></body></html>")


def test_the_viewer_asks_no_server_for_anything() -> None:
    document = make_viewer(head()).document
    assert "<link" not in document
    assert set(re.findall(r'<(?:img|script|iframe)[^>]*\ssrc="([a-z]+:)', document)) == {"data:"}


def test_a_real_scan() -> None:
    scan, labels = (DATA / "brain_oasis" / f"sub-1000_{kind}.nii.gz" for kind in ("T1w", "labels"))
    if not labels.exists():
        pytest.skip("the scans are not here")
    image, label = nib.load(scan), nib.load(labels)
    reference = np.isin(np.asarray(label.dataobj), (36, 37))
    viewer = make_viewer(
        ViewerCase(
            "t",
            "",
            "sub-1000",
            image.get_fdata(dtype=np.float32),
            reference,
            np.roll(reference, 3, 1),
            np.asarray(image.affine, float),
        )
    )
    assert len(viewer.document) <= MAX_BYTES
    mm = float(viewer.caption.split("voxels of ")[1].split(" mm")[0])
    ml = count(overlay(viewer), TRUE_POSITIVE) * mm**3 / 1000
    assert ml == pytest.approx((reference & np.roll(reference, 3, 1)).sum() / 1000, rel=0.1)


def test_a_store_grid_is_used_as_it_is(tiny_store: Store) -> None:
    s = tiny_store.subjects("test")[0]
    truth = tiny_store.label(s) > 0
    viewer = make_viewer(ViewerCase("t", "", s, tiny_store.image(s), truth, truth, tiny_store.grid(s).affine))
    assert count(overlay(viewer), TRUE_POSITIVE) == int(truth.sum())
