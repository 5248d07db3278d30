"""What the viewer shows is taken apart again and compared with the masks that went in."""

import base64
import dataclasses
import gzip
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.report.page.viewer import MAX_BYTES, Layer, Viewer, ViewerCase, compared, make_viewer
from tlseg_jax.report.page.viewer_box import niivue, with_class
from tlseg_jax.runtime.errors import InputError

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def head(side: int = 40, mm: float = 2.0, seed: int = 0, layers: int = 1) -> ViewerCase:
    """A bright ball with a truth on the subject's right, and a prediction moved by two voxels to the front."""
    at = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1) - side / 2
    rng = np.random.default_rng(seed)
    image = (np.linalg.norm(at, axis=-1) < 0.4 * side) * 3 + rng.normal(0, 0.05, (side,) * 3)
    reference = np.zeros((side,) * 3, bool)
    reference[24:30, 16:24, 18:23] = True
    found = compared(reference, np.roll(reference, 2, axis=1))
    named = ("left", "right", "third")
    # Each further structure lies two voxels lower than the one before.
    shown = tuple(Layer(named[i], f"sub-1 by HDT-V-FT, {named[i]}.", np.roll(found, -2 * i, 2)) for i in range(layers))
    return ViewerCase("Worst", "sub-1", image.astype(np.float32), np.diag([mm, mm, mm, 1.0]), shown)


def with_classes(case: ViewerCase, classes: NDArray[np.uint8], **more: Any) -> ViewerCase:
    return dataclasses.replace(case, layers=(dataclasses.replace(case.layers[0], classes=classes),), **more)


def held(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def overlay(viewer: Viewer, layer: int = 0) -> NDArray[np.uint8]:
    """(x, y, z) of the classes in RAS, x from the left to the right."""
    file = held(viewer.layers[layer].file)
    assert nib.aff2axcodes(file.affine) == ("R", "A", "S") and file.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(file.affine, held(viewer.file).affine)
    assert file.shape == held(viewer.file).shape == tuple(len(p) for p in viewer.places)
    return np.asarray(file.dataobj)


def counts(classes: NDArray[np.uint8]) -> list[int]:
    return [int((classes == v).sum()) for v in (1, 2, 3)]


def test_the_overlay_holds_each_voxel_of_the_masks() -> None:
    viewer = make_viewer(head())
    assert counts(overlay(viewer)) == [6 * 6 * 5, 6 * 2 * 5, 6 * 2 * 5]  # found, missed and wrong
    assert [words for words, _ in viewer.key] == ["true positive", "false negative (missed)", "false positive"]
    assert [dict(viewer.switches)[k] for k in ("truth", "prediction")] == [(1, 2), (1, 3)]


def test_voxels_lie_where_they_lay_in_mm() -> None:
    case = head()
    viewer = make_viewer(case)
    file = held(viewer.layers[0].file)
    marked = np.argwhere(overlay(viewer) > 0)
    mm = nib.affines.apply_affine(file.affine, marked)
    np.testing.assert_allclose(
        sorted(map(tuple, mm)), sorted(map(tuple, 2.0 * np.argwhere(case.layers[0].classes > 0)))
    )
    x, y, z = viewer.layers[0].start
    found = overlay(viewer)
    assert found[x].any() and found[:, y].any() and found[:, :, z].any()
    assert [float(viewer.places[2][k].split()[2]) for k in (marked[:, 2].min(), marked[:, 2].max())] == [18 * 2, 22 * 2]


def test_the_picture_shows_the_planes_with_the_right_on_the_left() -> None:
    viewer = make_viewer(head())
    rgb = np.array(Image.open(io.BytesIO(viewer.still)).convert("RGB")).astype(int)
    side = len(viewer.places[0])
    scale = 240 / side
    assert rgb.shape[0] == 240 and rgb.shape[1] == pytest.approx(3 * 240 + 8, abs=3)
    axial = rgb[:, :240]
    coloured = (np.ptp(axial, -1) > 40).nonzero()
    assert coloured[1].max() < 120  # the subject's right
    assert len(coloured[0]) == pytest.approx((6 * 6 + 6 * 2 + 6 * 2) * scale**2, rel=0.15)
    green = ((axial[..., 1] > axial[..., 0] + 60) & (axial[..., 1] > axial[..., 2] + 60)).nonzero()[0]
    blue = ((axial[..., 2] > axial[..., 0] + 30) & (axial[..., 2] > axial[..., 1] + 15)).nonzero()[0]
    assert blue.max() < green.min()  # what was wrongly found lies in front, which is up


def test_all_structures_share_one_scan() -> None:
    viewer = make_viewer(head(layers=3))
    assert [x.name for x in viewer.layers] == ["left", "right", "third"]
    assert [x.start[2] - viewer.layers[0].start[2] for x in viewer.layers] == [0, -2, -4]
    assert all(counts(overlay(viewer, i)) == [180, 60, 60] for i in range(3))


@pytest.mark.parametrize("axes", ["LAS", "RPI", "SRA", "PIL"])
def test_orientation_changes_nothing_but_the_way_there(axes: str) -> None:
    case = head()
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(case.affine), nib.orientations.axcodes2ornt(axes)
    )
    image, classes = (nib.orientations.apply_orientation(v, turn) for v in (case.image, case.layers[0].classes))
    affine = case.affine @ nib.orientations.inv_ornt_aff(turn, case.image.shape)
    assert make_viewer(with_classes(case, classes, image=image, affine=affine)) == make_viewer(case)


def noisy(side: int) -> ViewerCase:
    """A scan that does not fit: noise cannot be packed."""
    case = head(side, 1.0)
    noise = np.random.default_rng(1).normal(0, 1, case.image.shape).astype(np.float32)
    return dataclasses.replace(case, image=case.image + noise)


def test_a_large_scan_is_made_small_and_says_so() -> None:
    case = noisy(160)
    classes = np.zeros(case.image.shape, np.uint8)
    classes[10:20, 10:20, 10:20] = classes[140:150, 140:150, 140:150] = 1
    viewer = make_viewer(with_classes(case, classes))
    assert len(viewer.file) <= MAX_BYTES and viewer.note.startswith("Shown with voxels of ")
    mm = float(viewer.note.split("voxels of ")[1].split(" mm")[0])
    found = overlay(viewer)
    assert counts(found)[0] * abs(np.linalg.det(held(viewer.file).affine)) == pytest.approx(2000, rel=0.2)
    sides = np.linalg.norm(held(viewer.file).affine[:3, :3], axis=0)
    np.testing.assert_allclose(sides, mm, rtol=0.02)
    at = nib.affines.apply_affine(held(viewer.file).affine, np.argwhere(found > 0))
    np.testing.assert_allclose(at.mean(0), np.argwhere(classes).mean(0), atol=0.5)


def test_a_large_scan_comes_closer_before_its_voxels_grow() -> None:
    viewer = make_viewer(noisy(180))
    assert viewer.note == "" and len(viewer.places[2]) < 70
    assert counts(overlay(viewer)) == [180, 60, 60]


def test_thick_slices_stay_as_they_are() -> None:
    case = head()
    affine = np.diag([2.0, 2.0, 8.0, 1.0])
    thick = with_classes(case, case.layers[0].classes[:, :, ::4], image=case.image[:, :, ::4], affine=affine)
    viewer = make_viewer(thick)
    np.testing.assert_allclose(np.linalg.norm(held(viewer.file).affine[:3, :3], axis=0), (2, 2, 8))
    assert counts(overlay(viewer)) == counts(thick.layers[0].classes) and viewer.note == ""


def test_slices_that_are_no_neighbours_stay_single() -> None:
    case = head()
    some = [3, 17, 20, 22, 39]
    more = {"image": case.image[..., some], "affine": np.diag([2.0, 2.0, 7.7, 1.0]), "stack": True}
    classes = case.layers[0].classes[..., some]
    viewer = make_viewer(with_classes(case, classes, **more, numbers=(4, 18, 21, 23, 40)))
    assert viewer.places[2] == tuple(f"slice {n} ({i} of 5)" for i, n in enumerate((4, 18, 21, 23, 40), 1))
    assert viewer.layers[0].start[2] in (2, 3) and "no neighbours" in viewer.note
    assert counts(overlay(viewer))[0] == 2 * 6 * 6
    width, height = Image.open(io.BytesIO(viewer.still)).size
    assert width == pytest.approx(height, abs=2)  # the axial plane alone


@pytest.mark.parametrize("empty", ["predicted", "reference", "both"])
def test_masks_may_be_empty(empty: str) -> None:
    case = head()
    full = case.layers[0].classes > 0
    none = np.zeros_like(full)
    reference, predicted = (none if empty in (which, "both") else full for which in ("reference", "predicted"))
    viewer = make_viewer(with_classes(case, compared(reference, predicted)))
    assert int((overlay(viewer) > 0).sum()) == int((reference | predicted).sum())


def test_a_flat_image_is_shown() -> None:
    case = head()
    flat = dataclasses.replace(case, image=np.zeros_like(case.image))
    assert counts(overlay(make_viewer(flat)))[0] == 6 * 6 * 5


def test_affines_must_be_possible() -> None:
    with pytest.raises(ValueError, match="singular"):
        make_viewer(dataclasses.replace(head(), affine=np.diag([2.0, 2.0, 0.0, 1.0])))


def test_niivue_is_packed_with_its_licence_and_its_class() -> None:
    script = gzip.decompress(base64.b64decode(niivue())).decode()
    assert len(niivue()) < 2_500_000 and script.startswith("/* ") and "Redistributions in binary form" in script[:2000]
    assert " as Niivue" in script[-100:] and script.count("export{") == 1


def test_another_ipyniivue_is_noticed() -> None:
    made = 'console.log("Creating new Niivue instance");let B=1,C=f(B);v=new $t2(C)}export{Ih as default};'
    assert with_class(made).endswith("export{Ih as default,$t2 as Niivue};")
    for other in (made.replace("Creating", "Making"), made.replace("default", "widget")):
        with pytest.raises(InputError, match="ipyniivue==2"):
            with_class(other)


def test_a_real_scan() -> None:
    scan, labels = (DATA / "brain_oasis" / f"sub-1000_{kind}.nii.gz" for kind in ("T1w", "labels"))
    if not labels.exists():
        pytest.skip("the scans are not here")
    image, label = nib.load(scan), nib.load(labels)
    reference = np.isin(np.asarray(label.dataobj), (36, 37))
    found = compared(reference, np.roll(reference, 3, 1))
    case = ViewerCase(
        "t", "sub-1000", image.get_fdata(dtype=np.float32), np.asarray(image.affine, float), (Layer("c", "", found),)
    )
    viewer = make_viewer(case)
    assert len(viewer.file) <= MAX_BYTES
    ml = counts(overlay(viewer))[0] * abs(np.linalg.det(held(viewer.file).affine)) / 1000
    assert ml == pytest.approx((found == 1).sum() / 1000, rel=0.1)


def test_a_store_grid_is_used_as_it_is(tiny_store: Store) -> None:
    s = tiny_store.subjects("test")[0]
    truth = tiny_store.label(s) > 0
    layer = Layer("blob", "", compared(truth, truth))
    viewer = make_viewer(ViewerCase("t", s, tiny_store.image(s), tiny_store.grid(s).affine, (layer,)))
    assert counts(overlay(viewer)) == [int(truth.sum()), 0, 0]
