"""From a raw scan to a label map on its own pixels by a 2D network, with networks whose right answer is known."""

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.evaluate.component_features import FEATURES
from tlseg_jax.evaluate.false_positives import Forest
from tlseg_jax.evaluate.label_map import save_label_map
from tlseg_jax.evaluate.predict import label_map_of, own_values, predict_scan
from tlseg_jax.evaluate.predict_once import Once
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.errors import InputError

SPEC = DatasetSpec(
    "balls",
    ("liver", "tumour"),
    PlaneGrid("CT", (48, 56), scaling="window", window=(-100.0, 100.0)),
    "balls",
    ((1, 2), (2,)),
    exclusive=False,
)
SIDES = {"R": 1.5, "A": 1.25, "S": 4.0}
EXTENT = {"R": 40, "A": 50, "S": 14}
"""mm and voxels on each axis of the body, whatever the file's order of axes is."""

CODES = ("RAS", "LPS", "SRA", "IPL", "RSA", "AIL")
"""Axial axis last, first and in the middle, running either way."""


def layers(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """A network that goes by brightness in the middle channel: a liver from -50 HU on, a tumour from 50 HU."""
    middle = planes[..., planes.shape[-1] // 2, None]
    return (1 / (1 + np.exp(-20 * (middle - np.array([-0.5, 0.5]))))).astype(np.float32)


def world(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y, z, 3) RAS mm of every voxel."""
    return nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))


def affine_of(code: str, tilt: float = 0.0) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine of a file with these axes about the origin, its plane turned by `tilt` radians."""
    shape = tuple(EXTENT[{"L": "R", "P": "A", "I": "S"}.get(c, c)] for c in code)
    axes = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    mm = [SIDES[{"L": "R", "P": "A", "I": "S"}.get(c, c)] for c in code]
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    columns = turn @ (np.array([axes[c] for c in code]).T * mm)
    offset = -columns @ ((np.array(shape) - 1) / 2)
    return (shape[0], shape[1], shape[2]), nib.affines.from_matvec(columns, offset)


def write_body(path: Path, code: str, tilt: float = 0.0) -> tuple[ScanFiles, NDArray[np.uint8]]:
    """A grey ball (0 HU) with a white one (100 HU) in its left front upper part, in fat (-100 HU); and the truth."""
    shape, affine = affine_of(code, tilt)
    mm = world(shape, affine)
    liver = np.linalg.norm(mm, axis=-1) < 20
    tumour = np.linalg.norm(mm - (-6, 7, 5), axis=-1) < 8
    image = np.where(tumour, 100, np.where(liver, 0, -100)).astype(np.int16)
    nib.save(nib.Nifti1Image(image, affine), path)
    return ScanFiles("body", path), liver.astype(np.uint8) + tumour


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def own_values_of(spec: DatasetSpec | DatasetSpec) -> tuple[int, ...]:
    return own_values(spec.structures, spec.label_values, spec.exclusive)


def test_a_structure_is_written_as_its_own_value() -> None:
    pair = PAPERS["hdt_c"].changed(structures=("a", "b"), label_values=((37,), (36,)))
    assert own_values_of(pair) == (37, 36) and own_values_of(PAPERS["hdt_c"]) == (1,)
    assert own_values_of(dataclasses.replace(pair, label_values=((37, 36), (5,)))) == (1, 2)  # no value is all of a
    assert own_values_of(PAPERS["lits"]) == (1, 2)
    assert own_values_of(PAPERS["mri_artery"]) == (1,)

    def of(*values: tuple[int, ...]) -> tuple[int, ...]:
        names = tuple(f"s{i}" for i in range(len(values)))
        return own_values(names, values, False)

    assert of((2, 1), (2,)) == (1, 2)
    assert of((63,)) == (63,)
    assert of((1, 2, 3), (2, 3), (3,)) == (1, 2, 3)
    assert of((1,), (1,)) == (1, 1)  # the same pixels: nothing is left for the first alone


def test_overlapping_structures_are_one_value_where_there_is_one() -> None:
    """Codes 1, 2 and 3: the first structure, the second, both."""
    codes = np.arange(4, dtype=np.uint8)

    def of(*values: tuple[int | str, ...]) -> tuple[list[int], dict[str, list[bool]]]:
        label, apart = label_map_of(codes, SPEC.changed(label_values=values))
        return label.tolist(), {s: m.tolist() for s, m in apart.items()}

    assert of((1, 2), (2,)) == ([0, 1, 2, 2], {})  # a tumour is liver wherever it is
    assert of((1, 3), (2, 3)) == ([0, 1, 2, 3], {})
    both = {"liver": [False, True, False, True], "tumour": [False, False, True, True]}
    assert of((1,), (2,)) == ([0, 1, 2, 2], both)
    assert of(("organ",), ("lesion",)) == ([0, 1, 2, 2], both)  # layers of segments
    apart = label_map_of(np.array([0, 1, 2], np.uint8), SPEC.changed(label_values=((1,), (2,))))[1]
    assert apart == {}  # they do not meet in this scan


def test_structures_that_no_value_tells_have_files_of_their_own(tmp_path: Path) -> None:
    files, truth = write_body(tmp_path / "body.nii.gz", "LPS")
    spec = SPEC.changed(label_values=((1,), (2,)))
    once = Once(lambda f: predict_scan(f, spec, None, None, layers), {"digest": "a"})
    made = once.make(files, tmp_path / "seg.nii.gz")
    assert made.warning.endswith("liver and tumour overlap where no label value says so: each has a file")
    for name, mask in (("liver", truth > 0), ("tumour", truth == 2)):
        image = nib.load(tmp_path / f"seg_{name}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), mask) and np.array_equal(
            image.affine, nib.load(files.image).affine
        )
    assert not once.make(files, tmp_path / "seg.nii.gz").anew
    (tmp_path / "seg_liver.nii.gz").unlink()
    assert once.make(files, tmp_path / "seg.nii.gz").anew and (tmp_path / "seg_liver.nii.gz").exists()
    # By another model that says both by one value none of them is left.
    Once(lambda f: predict_scan(f, SPEC, None, None, layers), {"digest": "b"}).make(files, tmp_path / "seg.nii.gz")
    assert not list(tmp_path.glob("seg_*.nii.gz"))


@pytest.mark.parametrize("code", CODES)
def test_a_scan_of_any_orientation_is_segmented_on_its_own_voxels(tmp_path: Path, code: str) -> None:
    files, truth = write_body(tmp_path / "body.nii.gz", code, tilt=0.2)
    prediction = predict_scan(files, SPEC, None, None, layers)
    # "pad" takes the pixels as they are: what the network says of one is what is written there.
    assert prediction.label.dtype == np.uint8
    assert np.array_equal(prediction.label, truth)
    voxel = np.prod(list(SIDES.values())) / 1000
    assert prediction.volumes_ml == {
        "liver": pytest.approx((truth > 0).sum() * voxel),
        "tumour": pytest.approx((truth == 2).sum() * voxel),
    }
    assert prediction.warnings == ()
    assert {"read", "inference", "to_scan"} <= set(prediction.seconds)
    save_label_map(prediction.label, prediction.affine, files, tmp_path / "seg.nii.gz")
    source, made = nib.load(files.image), nib.load(tmp_path / "seg.nii.gz")
    assert made.shape == source.shape
    assert np.array_equal(made.affine, source.affine)
    assert np.array_equal(np.asarray(made.dataobj), truth)


@pytest.mark.parametrize(
    "change",
    [
        {"resize": "fit", "pixels": (64, 40)},
        {"resize": "fit", "pixels": (30, 40)},
        {"resize": "spacing", "pixel_mm": 1.0, "pixels": (64, 64)},
    ],
    ids=["fit finer", "fit coarser", "spacing"],
)
@pytest.mark.parametrize("code", ["LPS", "AIL"])
def test_a_resized_slice_comes_back_onto_the_scans_pixels(tmp_path: Path, code: str, change: dict[str, object]) -> None:
    files, truth = write_body(tmp_path / "body.nii.gz", code)
    spec = SPEC.changed(**change)  # type: ignore[arg-type]
    sizes = []

    def seen(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        sizes.append(planes.shape)
        return layers(planes)

    label = predict_scan(files, spec, None, None, seen, batch=3).label
    assert set(sizes) == {(3, *spec.planes.pixels, 1)}
    assert label.shape == truth.shape
    assert dice(label > 0, truth > 0) > 0.95
    assert dice(label == 2, truth == 2) > 0.88


def test_what_a_slice_lost_by_cropping_is_background(tmp_path: Path) -> None:
    files, _ = write_body(tmp_path / "body.nii.gz", "RAS")
    spec = SPEC.changed(pixels=(24, 20))
    label = predict_scan(files, spec, None, None, lambda p: np.ones((*p.shape[:3], 2), np.float32)).label
    kept = np.argwhere(label.any(2))
    assert label.any(2).sum() == 24 * 20
    assert list(kept.min(0)) == [8, 15] and list(kept.max(0)) == [31, 34]
    assert (label[8:32, 15:35] == 2).all()


@pytest.mark.parametrize("code", ["RAS", "IPL", "RSA"])
def test_neighbouring_slices_are_channels_from_the_feet_up(tmp_path: Path, code: str) -> None:
    shape, affine = affine_of(code)
    height = world(shape, affine)[..., 2]
    slices = np.rint((height - height.min()) / SIDES["S"]).astype(int)
    image = (10 * slices - 65).astype(np.int16)  # the slice's number, as HU inside the window
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "steps.nii")
    found: list[NDArray[np.float32]] = []

    def look(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        found.append((planes[:, 24, 28] * 100 + 65) / 10)
        # Marks the slices that have number 4 right below them, which is number 5 and no other.
        below = np.abs(planes[..., 1:2] * 100 + 65 - 40) < 1
        return np.concatenate([below, np.zeros_like(below)], -1).astype(np.float32)

    label = predict_scan(ScanFiles("steps", tmp_path / "steps.nii"), SPEC, None, None, look, batch=4, channels=5).label
    numbers = np.rint(np.concatenate(found))[: EXTENT["S"]]
    wanted = np.clip(np.arange(EXTENT["S"])[:, None] + np.arange(-2, 3), 0, EXTENT["S"] - 1)
    assert np.array_equal(numbers, wanted)
    assert np.array_equal(label, (slices == 5).astype(np.uint8))


def forest_of_size(least_ml: float, liver: bool) -> Forest:
    """Keeps components from a volume on: trained on made-up components that differ in volume alone."""
    volume = list(FEATURES).index("volume_ml")
    table = np.zeros((200, len(FEATURES)))
    table[:, volume] = np.linspace(0, 2 * least_ml, 200)
    classifier = RandomForestClassifier(8, max_features=None, bootstrap=False, random_state=0)
    return Forest(classifier.fit(table, table[:, volume] > least_ml), liver, ("vol-0",), 100, 100)


def test_the_forest_drops_components_of_the_cleaned_structure_only(tmp_path: Path) -> None:
    shape, affine = affine_of("LPS")
    mm = world(shape, affine)
    liver = np.linalg.norm(mm, axis=-1) < 20
    speck = np.linalg.norm(mm - (10, 4, 2), axis=-1) < 3
    large = np.linalg.norm(mm - (-6, -5, -2), axis=-1) < 8
    lone = np.linalg.norm(mm - (24, 24, 2), axis=-1) < 3  # small as well, and no tumour
    image = np.where(speck | large, 100, np.where(liver | lone, 0, -100)).astype(np.int16)
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "body.nii.gz")
    files = ScanFiles("body", tmp_path / "body.nii.gz")
    both = (liver | lone).astype(np.uint8) + (speck | large)
    plain = predict_scan(files, SPEC, None, None, layers)
    assert np.array_equal(plain.label, both)
    for with_liver in (True, False):
        forest = forest_of_size(0.5, with_liver)
        cleaned = predict_scan(files, SPEC, None, None, layers, forest=forest, cleaned="tumour")
        assert np.array_equal(cleaned.label, (liver | lone).astype(np.uint8) + large)
        assert cleaned.volumes_ml["liver"] == plain.volumes_ml["liver"]
        assert 0 < cleaned.volumes_ml["tumour"] < plain.volumes_ml["tumour"]


def test_what_was_not_found_is_said(tmp_path: Path) -> None:
    files, _ = write_body(tmp_path / "body.nii.gz", "RAS")

    def liver_alone(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        return layers(planes) * np.array([1, 0], np.float32)

    prediction = predict_scan(files, SPEC, None, None, liver_alone)
    assert [w.split(":")[0] for w in prediction.warnings] == ["no tumour was found"]
    assert prediction.volumes_ml["tumour"] == 0 and set(np.unique(prediction.label)) == {0, 1}


def test_values_that_are_no_hounsfield_units_are_said(tmp_path: Path) -> None:
    files, _ = write_body(tmp_path / "body.nii.gz", "RAS")
    scan = nib.load(files.image)
    nib.save(nib.Nifti1Image((np.asarray(scan.dataobj) + 100.5).astype(np.float32), scan.affine), tmp_path / "grey.nii")
    (warning,) = predict_scan(ScanFiles("g", tmp_path / "grey.nii"), SPEC, None, None, layers).warnings
    assert "grey.nii" in warning and "Hounsfield" in warning


def test_a_label_beside_the_scan_is_not_needed_and_a_network_gone_wrong_is_said(tmp_path: Path) -> None:
    files, truth = write_body(tmp_path / "body.nii.gz", "RAS")
    with pytest.raises(InputError, match="not a number"):
        predict_scan(files, SPEC, None, None, lambda p: np.full((*p.shape[:3], 2), np.nan, np.float32))
    missing = dataclasses.replace(files, label=tmp_path / "not_there.nii.gz")
    assert np.array_equal(predict_scan(missing, SPEC, None, None, layers).label, truth)
