"""Every bad file is written for real and must be refused with one sentence; good ones round-trip."""

import gzip
import logging
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.datasets.structures import Labels
from tlseg_jax.preprocess.reading.read import check_values_named, read_header, read_scan
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles, UnnamedValuesError

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHAPE = (6, 7, 8)
AFFINE = np.array([[-1.0, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]])
Make = Callable[[Path], Path]


def volume(dtype: str = "int16") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)


def label_map(dtype: str = "uint8") -> NDArray[Any]:
    label = np.zeros(SHAPE, dtype)
    label[1:3, 2:4, 2:5] = 36
    label[4, 2:4, 2:5] = 37
    return label


def save(path: Path, data: NDArray[Any], affine: NDArray[Any] = AFFINE, kind: Any = nib.Nifti1Image) -> Path:
    kind(data, affine).to_filename(path)
    return path


def patch_header(path: Path, offset: int, fmt: str, *values: float) -> None:
    """Overwrite header fields of a .nii or .nii.gz file in place."""
    zipped = path.name.endswith((".gz", ".mgz"))
    content = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    struct.pack_into(fmt, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)) if zipped else bytes(content))


def saved(
    data: NDArray[Any], affine: NDArray[Any] = AFFINE, name: str = "x.nii.gz", kind: Any = nib.Nifti1Image
) -> Make:
    return lambda d: save(d / name, data, affine, kind)


def written(content: bytes, name: str = "x.nii.gz") -> Make:
    def make(d: Path) -> Path:
        (d / name).write_bytes(content)
        return d / name

    return make


def damaged(change: Callable[[bytes], bytes], name: str = "x.nii.gz") -> Make:
    """A good file whose bytes are changed."""

    def make(d: Path) -> Path:
        path = save(d / name, volume())
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def broken_link(d: Path) -> Path:
    (d / "x.nii.gz").symlink_to(d / "elsewhere.nii.gz")
    return d / "x.nii.gz"


def folder(d: Path) -> Path:
    (d / "x.nii.gz").mkdir()
    return d / "x.nii.gz"


def flipped_checksum(content: bytes) -> bytes:
    return content[:-6] + bytes([content[-6] ^ 1]) + content[-5:]


def with_one(value: float, dtype: str = "float32") -> NDArray[Any]:
    data = volume(dtype)
    data[2, 3, 4] = value
    return data


def colour() -> NDArray[Any]:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"] = volume("uint8")
    return rgb


def patched(offset: int, fmt: str, *values: float, name: str = "x.nii.gz") -> Make:
    def make(d: Path) -> Path:
        path = save(d / name, volume(), kind=nib.MGHImage if name.endswith(("mgz", "mgh")) else nib.Nifti1Image)
        patch_header(path, offset, fmt, *values)
        return path

    return make


NOISE = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
BAD: list[tuple[Make, str]] = [
    (lambda d: d / "x.nii.gz", "does not exist"),
    (broken_link, "link"),
    (folder, "folder"),
    (written(b""), "is empty"),
    (written(b"NRRD", "x.img.txt"), "not named as an image"),
    (damaged(lambda b: b[:-80]), "cut short"),
    (damaged(lambda b: b[:-8]), "cut short"),  # of gzip's checksum alone
    (damaged(flipped_checksum), "damaged, its gzip"),
    (damaged(lambda b: b[:10]), "cut short"),
    (written(gzip.compress(b"x")[:10] + b"\xff" + NOISE), "damaged, its gzip"),
    (damaged(lambda b: b[:-10], "x.nii"), "cut short"),
    (damaged(lambda b: gzip.compress(gzip.decompress(b)[:-10])), "cut short"),
    (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"), "holds text"),
    (written(b"<html>log in first</html>" * 100, "x.nii"), "holds text"),
    (written(gzip.compress(b"hello " * 1000)), "no NIfTI header"),
    (damaged(gzip.decompress), "rename it to .nii"),
    (damaged(gzip.compress, "x.nii"), "rename it to .nii.gz"),
    (saved(np.stack([volume()] * 3, -1)), "4D series"),
    (saved(np.stack([volume("float32")] * 3, -1), name="x.mgz", kind=nib.MGHImage), "4D series"),
    (saved(volume()[:, :, 0]), "2D image"),
    (saved(volume()[:, :, :1]), "2D image"),
    (saved(with_one(np.nan)), "infinite in 1 of its 336 voxels"),
    (saved(with_one(np.inf)), "infinite in 1 of its 336 voxels"),
    (saved(with_one(1e300, "float64")), "infinite in 1 of its 336 voxels"),
    (saved(np.full(SHAPE, 7, np.int16)), "constant"),
    (saved(volume("complex64")), "(complex)"),
    (saved(colour()), "(colour)"),
    (patched(40, "<4h", 3, -6, 7, 8), "claims a size of -6x7x8"),
    (patched(40, "<4h", 3, 0, 7, 8), "claims a size of 0x7x8"),
    (patched(40, "<4h", 3, 30000, 30000, 30000), "GiB"),
    (patched(40, "<4h", 3, 30000, 30000, 30000, name="x.nii"), "GiB"),
    (patched(40, "<4h", 3, 600, 600, 600), "more than its"),
    (patched(40, "<4h", 3, 600, 600, 600, name="x.nii"), "cut short"),
    (patched(40, "<h", 9), "dimension"),
    (patched(70, "<h", 1), "(unknown)"),
    (patched(70, "<h", 9999), "(unknown)"),
    (patched(80, "<f", 0.0), "voxels of 0 x"),
    (patched(80, "<f", float("nan")), "voxels of nan x"),
    (patched(108, "<f", float("nan")), "voxel offset"),
    (patched(108, "<f", 1e30), "more than its"),
    (patched(108, "<f", 3.0), "voxel offset"),
    (patched(108, "<f", 0.0), "voxel offset"),
    (patched(108, "<f", -352.0), "voxel offset"),
    (patched(112, "<2f", 1.0, float("nan")), "cannot be read"),
    (patched(344, "<4s", b"ni1\0"), "two-file"),  # type: ignore[arg-type]
    (patched(344, "<4s", b"abc\0"), "no NIfTI header"),  # type: ignore[arg-type]
    (patched(280, "<4f", float("nan"), 0, 0, 0), "not finite"),
    (patched(280, "<12f", *[0] * 12), "voxels of 0 x"),
    (patched(280, "<8f", -1, -1, 0, 10, -1, -1, 0, 10), "singular"),  # the first two axes point the same way
    (saved(volume(), np.diag([0.001, 0.001, 0.001, 1])), "0.001 x 0.001 x 0.001 mm"),  # metres, likely
    (saved(volume(), np.diag([1000.0, 1000, 1000, 1])), "1000 x 1000 x 1000 mm"),  # micrometres, likely
    (patched(0, ">i", 7, name="x.mgh"), "no MGH header"),
    (patched(4, ">i", -6, name="x.mgz"), "claims a size of -6"),
    (patched(4, ">3i", 30000, 30000, 30000, name="x.mgz"), "GiB"),
    (patched(20, ">i", 77, name="x.mgz"), "(unknown)"),
    (patched(30, ">f", 0.0, name="x.mgz"), "voxels of 0 x"),
]


def check_sentence(error: ExclusionError, path: Path, words: str) -> None:
    text = str(error)
    assert text.startswith(str(path)), text
    assert words in text
    assert text.endswith(".") and "\n" not in text and "Traceback" not in text
    assert ": " in text.removeprefix(str(path))  # the remedy
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)


@pytest.mark.parametrize(("make", "words"), BAD, ids=[f"{i}-{w}" for i, (_, w) in enumerate(BAD)])
def test_bad_image_is_refused_with_one_sentence(
    make: Make, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = make(tmp_path)
    with caplog.at_level(logging.DEBUG), pytest.raises(ExclusionError) as caught:
        read_scan(ScanFiles("s", path))
    check_sentence(caught.value, path, words)
    assert capfd.readouterr() == ("", "")
    assert not [r for r in caplog.records if r.name.startswith("nibabel")]


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.nii.gz", volume())
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything: stand in for the kernel

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ExclusionError) as caught:
        read_header(path)
    check_sentence(caught.value, path, "may not be read")


def test_terabytes_are_refused_before_allocating(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", volume(), kind=nib.Nifti2Image)
    patch_header(path, 16, "<4q", 3, 2**40, 2**40, 2**40)  # beyond int64 when multiplied
    tracemalloc.start()
    try:
        with pytest.raises(ExclusionError, match="GiB"):
            read_scan(ScanFiles("s", path))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_gzip_that_goes_on_past_its_voxels_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", volume())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(3 << 20), 1))
    with pytest.raises(ExclusionError, match="more data than its header says"):
        read_scan(ScanFiles("s", path))


def read_label(d: Path, label: NDArray[Any], values: tuple[int | str, ...] = (), affine: NDArray[Any] = AFFINE) -> Any:
    image = save(d / "x.nii.gz", volume())
    return read_scan(ScanFiles("s", image, save(d / "y.nii.gz", label, affine)), Labels.of(*values)).label


def nudged(mm: float) -> NDArray[Any]:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


@pytest.mark.parametrize(
    ("label", "values", "affine", "words"),
    [
        (label_map(), (36, 99), AFFINE, "no voxel of the label value 99 (it has 36, 37)"),
        (np.zeros(SHAPE, np.uint8), (36,), AFFINE, "no voxel of the label value 36 (it has only 0)"),
        (np.zeros(SHAPE, np.uint8), (), AFFINE, "empty label map"),
        (np.arange(336, dtype=np.int16).reshape(SHAPE), (999,), AFFINE, "and 323 more"),
        (label_map("float32") * 0.5 + 0.25, (), AFFINE, "0.25, which is not a whole number"),
        (np.where(label_map() > 0, np.nan, 1).astype("f4"), (), AFFINE, "NaN"),
        (label_map()[:, :, :-1], (), AFFINE, "has 6x7x7 voxels and its image has 6x7x8"),
        (label_map(), (), AFFINE, "holds 2 label values and none is named as the structure"),
        (label_map(), (), nudged(0.5), "lies up to 0.5 mm away"),
        (label_map(), (), AFFINE @ np.diag([1, 1, 1.01, 1]), "another affine"),
        (label_map(), (), AFFINE @ np.diag([-1, 1, 1, 1]), "another affine"),
        (np.stack([label_map()] * 2, -1), (), AFFINE, "4D series"),
    ],
)
def test_bad_label_is_refused(
    label: NDArray[Any], values: tuple[int, ...], affine: NDArray[Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ExclusionError) as caught:
        read_label(tmp_path, label, values, affine)
    check_sentence(caught.value, tmp_path / "y.nii.gz", words)


def test_a_structure_of_many_parts_may_lack_some(tmp_path: Path) -> None:
    image, label = save(tmp_path / "x.nii.gz", volume()), save(tmp_path / "y.nii.gz", label_map())
    read = read_scan(ScanFiles("s", image, label), Labels.of(36, 37, 99))
    assert read.label is not None and np.array_equal(read.label > 0, label_map() > 0)
    assert read.warnings == (f"{label} has no voxel of 99: taken as not there.",)
    with pytest.raises(ExclusionError, match="no voxel of the label values 97, 98, 99"):
        read_scan(ScanFiles("s", image, label), Labels.of(97, 98, 99))


def test_bad_mask_is_refused(tmp_path: Path) -> None:
    image = save(tmp_path / "x.nii.gz", volume())
    for data, words in ((np.zeros(SHAPE, "u1"), "empty mask"), (label_map()[1:], "has 5x7x8 voxels")):
        mask = save(tmp_path / "m.nii.gz", data)
        with pytest.raises(ExclusionError) as caught:
            read_scan(ScanFiles("s", image, None, mask))
        check_sentence(caught.value, mask, words)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_label_values(dtype: str, tmp_path: Path) -> None:
    label = label_map(dtype)
    np.testing.assert_array_equal(read_label(tmp_path, label, ("all",)), label > 0)
    np.testing.assert_array_equal(read_label(tmp_path, label, (37,)), label == 37)
    np.testing.assert_array_equal(read_label(tmp_path, label, (36, 37)), np.isin(label, (36, 37)))


def test_label_within_a_thousandth_of_a_millimetre_and_a_trailing_axis_are_fine(tmp_path: Path) -> None:
    label = label_map()[..., None, None]
    np.testing.assert_array_equal(read_label(tmp_path, label, ("all",), nudged(5e-4)), label[..., 0, 0] > 0)


def test_mask_is_every_voxel_above_zero(tmp_path: Path) -> None:
    stripped = volume("float32") * (label_map() > 0)
    image = save(tmp_path / "x.nii.gz", volume())
    scan = read_scan(ScanFiles("s", image, None, save(tmp_path / "m.mgz", stripped, kind=nib.MGHImage)))
    assert scan.label is None and scan.mask is not None and scan.mask.dtype == bool
    np.testing.assert_array_equal(scan.mask, stripped > 0)


OBLIQUE = nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([0.9, 1.1, 3.0])


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPI", "SRA", "PIR", "oblique"])
@pytest.mark.parametrize("zipped", [True, False])
def test_good_files_round_trip(kind: Any, axes: str, zipped: bool, tmp_path: Path) -> None:
    affine = np.eye(4)
    if axes == "oblique":
        affine[:3, :3], want = OBLIQUE, "".join(nib.aff2axcodes(nib.affines.from_matvec(OBLIQUE)))
    else:
        flips, want = nib.orientations.axcodes2ornt(axes), axes
        affine = np.linalg.inv(nib.orientations.inv_ornt_aff(flips, SHAPE)) @ np.diag([1.0, 1.5, 2.0, 1.0])
    data = volume("float32") / 3
    ending = {True: ".mgz", False: ".mgh"} if kind is nib.MGHImage else {True: ".nii.gz", False: ".nii"}
    path = save(tmp_path / f"x{ending[zipped]}", data, affine, kind)
    header = read_header(path)
    assert header.shape == SHAPE and header.axcodes == want and header.dtype == "float32"
    np.testing.assert_allclose(header.affine, affine, atol=1e-4)
    np.testing.assert_allclose(header.grid.spacing, np.linalg.norm(affine[:3, :3], axis=0), atol=1e-5)
    scan = read_scan(ScanFiles("s", path))
    assert scan.image.dtype == np.dtype("f4")
    np.testing.assert_array_equal(scan.image, data)
    content = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
    np.testing.assert_array_equal(scan.affine, kind.from_bytes(content).affine)


def test_scale_factor_is_applied_and_said(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", volume())
    patch_header(path, 112, "<2f", 0.5, -3.0)
    assert read_header(path).scaled
    np.testing.assert_array_equal(read_scan(ScanFiles("s", path)).image, volume() * 0.5 - 3)


def test_big_endian(tmp_path: Path) -> None:
    image = nib.Nifti1Image(volume(), AFFINE, nib.Nifti1Header(endianness=">"))
    image.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "x.nii")
    assert (tmp_path / "x.nii").read_bytes()[:4] == struct.pack(">i", 348)
    header = read_header(tmp_path / "x.nii")
    assert (header.dtype, header.byteorder) == ("int16", ">")
    image_voxels = read_scan(ScanFiles("s", tmp_path / "x.nii")).image
    assert image_voxels.dtype.isnative
    np.testing.assert_array_equal(image_voxels, volume())


def test_header_reads_no_voxels(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", np.random.default_rng(0).random((40, 40, 40)))
    path.write_bytes(path.read_bytes()[:2000])  # the header survives, the voxels do not
    assert read_header(path).shape == (40, 40, 40)


def test_real_scan_agrees_with_nibabel() -> None:
    folder = DATA / "brain_oasis"
    if not folder.is_dir():
        pytest.skip("no real scans here")
    files = ScanFiles("s", folder / "sub-1000_T1w.nii.gz", folder / "sub-1000_labels.nii.gz")
    scan = read_scan(files, Labels.of(36, 37))
    stored = np.asarray(nib.load(str(files.label)).dataobj)  # type: ignore[attr-defined]
    assert scan.label is not None
    assert int(scan.label.sum()) == int((stored == 36).sum() + (stored == 37).sum()) > 0
    np.testing.assert_array_equal(scan.image, nib.load(files.image).get_fdata())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("folder", "label", "structure", "words"),
    [
        (
            "brain_oasis",
            "sub-1000_labels.nii.gz",
            "lateral ventricle",
            "Neuromorphometrics's names 51 Right Lateral Ventricle, 52 Left Lateral Ventricle, 4 3rd Ventricle",
        ),
        (
            "brain_freesurfer/sample_ecog",
            "aparc+aseg.mgz",
            "caudate",
            "FreeSurfer's names 11 Left Caudate, 50 Right Caudate, 2 Left Cerebral White Matter",
        ),
        ("brain_labelmaps", "seg_01.nii.gz", "caudate", "FreeSurfer's names 11 Left Caudate, 50 Right Caudate, 2 "),
        ("abdomen_mr_chaos", "l*_1.nii.gz", "liver", "(it holds 1-4)"),
    ],
)
def test_values_of_a_real_map_are_listed_where_none_is_named(
    folder: str, label: str, structure: str, words: str
) -> None:
    found = sorted((DATA / folder).glob(label))
    if not found:
        pytest.skip("no real scans here")
    with pytest.raises(UnnamedValuesError, match="`label_values=") as caught:
        check_values_named(found[0], Labels((structure,)))
    check_sentence(caught.value, found[0], words)


def test_the_one_value_of_a_map_needs_no_name_and_is_told(tmp_path: Path) -> None:
    label = np.where(label_map() == 37, 37, 0).astype(np.int16)
    image = save(tmp_path / "x.nii.gz", volume())
    scan = read_scan(ScanFiles("s", image, save(tmp_path / "y.nii.gz", label)))
    assert scan.label is not None and scan.label_values == ((37,),)
    np.testing.assert_array_equal(scan.label, label == 37)


def test_real_freesurfer_scan() -> None:
    folder = DATA / "brain_freesurfer" / "sample_ecog"
    if not folder.is_dir():
        pytest.skip("no real scans here")
    files = ScanFiles("s", folder / "T1.mgz", folder / "aseg.mgz", folder / "brainmask.mgz")
    assert read_header(files.image).axcodes == "LIA"
    scan = read_scan(files, Labels.of(11, 50))
    stored = np.asarray(nib.load(str(files.label)).dataobj)  # type: ignore[attr-defined]
    assert scan.label is not None and scan.mask is not None
    assert int(scan.label.sum()) == int(np.isin(stored, (11, 50)).sum())
    assert 0.9e6 < scan.mask.sum() < 1.9e6  # mm3: a brain is a litre or more


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mgh", "x.mgz"])
def test_a_header_overwritten_at_random_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Whatever stands in the header, nothing but a `Scan` or an `ExclusionError` comes out."""
    kind = nib.MGHImage if "mg" in name else nib.Nifti1Image
    path = save(tmp_path / name, volume(), kind=kind)
    zipped = name.endswith("z")
    good = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(40):
        content = bytearray(good)
        for at in rng.integers(0, 352 if kind is nib.Nifti1Image else 90, rng.integers(1, 6)):
            content[at] = rng.integers(256)
        path.write_bytes(gzip.compress(bytes(content), 1) if zipped else bytes(content))
        try:
            scan = read_scan(ScanFiles("s", path, path), Labels.of("all"))
        except ExclusionError as e:
            refused += 1
            assert "\n" not in str(e)
        else:
            assert np.isfinite(scan.image).all() and scan.image.ndim == 3
    assert 0 < refused < 40
