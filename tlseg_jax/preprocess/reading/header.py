"""A scan file's header, read and checked without touching its voxels: milliseconds a file.

Every fault that the header alone shows is found here, before anything large is allocated.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.reading.dicom import read_series
from tlseg_jax.preprocess.reading.formats import (
    EXTENSIONS,
    META,
    MGH,
    NOT_READ,
    NRRD,
    PAIR,
    dicom_files,
    extension_of,
    is_dicom,
    pair_of,
)
from tlseg_jax.preprocess.reading.header_itk import ItkVolume, Segment, itk_information
from tlseg_jax.preprocess.reading.scan import ExclusionError
from tlseg_jax.preprocess.reading.scan_file import AGAIN, fault, is_gzipped, one_sentence, open_plain

MAX_BYTES = 4 << 30
"""Largest volume, in bytes as float32, that is read: a cube of 1024 voxels a side."""

DEFLATE_RATIO = 1032
"""Deflate cannot shrink data by more than this (RFC 1951: 258 bytes in two bits)."""

SMALLEST_MM, LARGEST_MM = 0.05, 20.0
"""Voxel sizes outside this range are a unit or header error, not a scan of a person."""

_HEAD_BYTES = 544  # a NIfTI-2 header and its extension flag, the longest of the formats

_NAMED_VALUES = 12

_ANALYZE_AXES = {0: "LAS", 1: "LSA", 2: "ASL"}
"""Analyze 7.5's `orient` (transverse, coronal, sagittal; each unflipped) -> where its axes point, by Mayo."""


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What a file says of its voxels, checked.

    Attributes:
      shape: voxels on the file's three axes; trailing axes of 1 are dropped.
      affine: (4, 4) float64, voxel index -> RAS mm, as nibabel chooses it (sform, qform, then neither).
      dtype: NumPy name of the stored type, such as "int16".
      end: bytes of the (decompressed) file up to the end of the voxels.
      byteorder: of the stored values, "<" or ">" (as NumPy writes it).
      slope: stored values are multiplied by it, then `inter` is added.
      inter: see `slope`.
      files: that hold the voxels: one, or one for each slice of a DICOM series.
      reader: how they are read: "bytes" as they stand in the file, or through SimpleITK.
      layers: label maps in the file, where segments overlap.
      warning: a sentence on what the file leaves open, or empty.
    """

    shape: tuple[int, int, int]
    affine: Affine
    dtype: str
    end: int
    byteorder: str = "<"
    slope: float = 1.0
    inter: float = 0.0
    files: tuple[Path, ...] = ()
    reader: Literal["bytes", "itk", "dicom"] = "bytes"
    layers: int = 1
    segments: tuple[Segment, ...] = ()
    warning: str = ""

    @property
    def grid(self) -> Grid:
        """The voxel grid."""
        return Grid(self.shape, self.affine)

    @property
    def axcodes(self) -> str:
        """Where each axis points, such as "LAS"."""
        return "".join(map(str, nib.aff2axcodes(self.affine)))

    @property
    def scaled(self) -> bool:
        """Whether stored values are multiplied or shifted (scl_slope, scl_inter)."""
        return (self.slope, self.inter) != (1.0, 0.0)


def read_header(path: Path, single_slice: bool = False) -> Header:
    """Read and check the header of an image of any format that is read.

    NIfTI-1 and NIfTI-2 (one file or two), Analyze 7.5, MGH, NRRD, MetaImage, or a DICOM series.

    Args:
      path: the file, the folder with a DICOM series, or one file of a series.
      single_slice: accept a volume of one slice, (x, y, 1), as data sets of slices may hold.

    Raises:
      ExclusionError: the file is missing, unreadable or not of these formats; it is not one 3D volume
        of real numbers; it claims more voxels than it can hold or than 4 GiB of float32; or its
        affine is singular or its voxels are smaller than 0.05 mm or larger than 20 mm.
    """
    extension = extension_of(path)
    if extension in NOT_READ:
        raise fault(path, f"is of a format that is not read ({NOT_READ[extension]})", "convert it to .nii.gz")
    with one_sentence(path):
        if any(dicom_files(path)) if path.is_dir() else is_dicom(path):
            return _itk(path, read_series(path), "dicom", single_slice)
        if path.is_dir():
            raise IsADirectoryError
        if not extension:
            raise fault(
                path, "is not named as an image", f"give a DICOM series or a file that ends in {', '.join(EXTENSIONS)}"
            )
        if extension in PAIR:
            return _pair(path, single_slice)
        size = path.stat().st_size
        with path.open("rb") as f:
            start = f.read(_HEAD_BYTES)
        if not start:
            raise fault(path, "is empty", AGAIN)
        if extension in NRRD + META:
            return _itk(path, itk_information(path), "itk", single_slice)
        _check_compression(path, start)
        if is_gzipped(path):
            with open_plain(path) as f:
                start = f.read(_HEAD_BYTES)
        if extension in MGH:
            return _mgh(path, start, size, single_slice)
        return _nifti(path, start, size, single_slice)


def _check_compression(path: Path, start: bytes) -> None:
    """Refuse a file whose content is not what its name says, naming what it is."""
    zipped = start[:2] == b"\x1f\x8b"
    if zipped == is_gzipped(path):
        if not zipped and _is_text(start):
            raise fault(path, "holds text, not an image", "download or export the scan again")
        return
    if zipped:
        raise fault(path, "is gzipped and its name does not say so", "rename it to .nii.gz or .mgz")
    if nifti_class(start) is not None or start[:4] == b"\0\0\0\1":
        raise fault(path, "is not compressed and its name says it is", "rename it to .nii or .mgh")
    what = "holds text" if _is_text(start) else "is not gzip data"
    raise fault(path, f"{what}, not an image", "download or export the scan again")


def _is_text(start: bytes) -> bool:
    return all(32 <= b < 127 or b in b"\t\r\n" for b in start)


def nifti_class(start: bytes) -> type[nib.Nifti1Header] | None:
    """The header class by the magic string, as the name says nothing of the version."""
    if start[344:348] in (b"n+1\0", b"ni1\0"):
        return nib.Nifti1Header
    if start[4:8] in (b"n+2\0", b"ni2\0"):
        return nib.Nifti2Header  # type: ignore[no-any-return]
    return None


def _nifti(path: Path, start: bytes, size: int, single_slice: bool) -> Header:
    kind = nifti_class(start)
    if kind is None or len(start) < kind.sizeof_hdr:
        raise fault(path, "has no NIfTI header", "export the scan again as NIfTI")
    if start[344:348] == b"ni1\0" or start[4:8] == b"ni2\0":
        raise fault(path, "is the header of a two-file NIfTI", "convert it to a single .nii.gz file")
    raw = kind(start[: kind.sizeof_hdr], check=False)
    # nibabel takes an offset of zero at its word and gives the header back as voxels.
    return _dims_and_voxels(path, path, raw, size, single_slice, kind.sizeof_hdr + 4)


def _pair(path: Path, single_slice: bool) -> Header:
    """A NIfTI in two files, or Analyze 7.5, whose header tells the patient's left from right by custom alone."""
    head, data = pair_of(path)
    if not head.exists() and path.exists():
        raise fault(path, f"has no header {head.name} beside it", AGAIN)
    with head.open("rb") as f:
        start = f.read(_HEAD_BYTES)
    if not data.exists():
        raise fault(path, f"has no voxels' file {data.name} beside it", AGAIN)
    size = data.stat().st_size
    kind = nifti_class(start)
    if kind is not None:
        return _dims_and_voxels(path, data, kind(start[: kind.sizeof_hdr], check=False), size, single_slice, 0)
    if not nib.Spm2AnalyzeImage.header_class.may_contain_header(start):
        raise fault(path, "has no NIfTI or Analyze header", "export the scan again as NIfTI")
    raw = nib.Spm2AnalyzeImage.header_class(start[: nib.Spm2AnalyzeImage.header_class.sizeof_hdr], check=False)
    orient = raw["orient"].tobytes()[0]
    if orient not in _ANALYZE_AXES:
        raise fault(
            path, f"is Analyze whose axes' order is not known (orient {orient})", "convert it to NIfTI, which says it"
        )
    axes, affine = _ANALYZE_AXES[orient], None
    if head.with_suffix(".mat").exists():  # SPM's
        affine = np.array(nib.load(head).affine, np.float64)  # type: ignore[attr-defined]
    elif axes != "LAS":
        affine = _centred(axes, [float(z) for z in raw["pixdim"][1:4]], [int(n) for n in raw["dim"][1:4]])
    header = _dims_and_voxels(path, data, raw, size, single_slice, 0, affine)
    warning = f"{path} is Analyze, which does not say which side is left: its axes are taken as {header.axcodes}."
    return dataclasses.replace(header, warning=warning)


def _centred(axes: str, mm: Sequence[float], shape: Sequence[int]) -> Affine:
    """The affine of axes that point to `axes`, with the volume's middle at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for i, (axis, sign) in enumerate(nib.orientations.axcodes2ornt(axes)):
        affine[int(axis), i] = sign * mm[i]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape, float) - 1) / 2)
    return affine


def _itk(path: Path, info: ItkVolume, reader: Literal["itk", "dicom"], single_slice: bool) -> Header:
    shape = _shape(path, list(info.size), single_slice)
    if info.components > 1 and not info.segments:
        raise fault(path, f"holds {info.components} numbers a voxel", "give one real number a voxel")
    dtype = _real(path, info.dtype)
    size = sum(p.stat().st_size for p in info.files if p.exists())
    header = _header(path, size, shape, info.affine, dtype, layers=info.components, packed=True)
    unsaid = f"{path} does not say which way its axes point: they are taken as left, posterior, superior."
    warning = "" if info.oriented else unsaid
    return dataclasses.replace(header, reader=reader, files=info.files, segments=info.segments, warning=warning)


def _dims_and_voxels(
    path: Path, data: Path, raw: Any, size: int, single_slice: bool, least_offset: int, affine: Affine | None = None
) -> Header:
    """What NIfTI and Analyze headers have in common; the voxels are in the file `data` of `size` bytes."""
    dims = [int(n) for n in raw["dim"]]
    if not 1 <= dims[0] <= 7:
        raise fault(path, "claims an impossible number of dimensions", "export the scan again as NIfTI")
    shape = _shape(path, dims[1 : dims[0] + 1], single_slice)
    dtype = _dtype(path, raw)
    offset = float(raw["vox_offset"])
    if not math.isfinite(offset) or offset < least_offset:
        raise fault(path, f"has an impossible voxel offset ({offset:g})", "export the scan again as NIfTI")
    # nibabel would turn a voxel size of zero into one and go on: ask before it does.
    zooms = np.asarray(raw["pixdim"][1:4], np.float64)
    if not np.all(np.isfinite(zooms)) or np.any(zooms == 0):
        raise _bad_spacing(path, zooms)
    raw.check_fix(error_level=40)
    slope, inter = raw.get_slope_inter()
    if affine is None:
        affine = np.array(raw.get_best_affine(), np.float64)
    header = _header(path, size, shape, affine, dtype, int(offset))
    slope, inter = (usual if v is None else float(v) for v, usual in ((slope, 1.0), (inter, 0.0)))
    return dataclasses.replace(header, slope=slope, inter=inter, files=(data,))


def _mgh(path: Path, start: bytes, size: int, single_slice: bool) -> Header:
    if len(start) < DATA_OFFSET or start[:4] != b"\0\0\0\1":
        raise fault(path, "has no MGH header", "export the scan again from FreeSurfer")
    raw = MGHHeader(start[: MGHHeader._hdrdtype.itemsize], check=False)
    shape = _shape(path, [int(n) for n in raw["dims"]], single_slice)
    dtype = _dtype(path, raw)
    affine = np.array(raw.get_affine(), np.float64)
    return _header(path, size, shape, affine, dtype, DATA_OFFSET)


def _shape(path: Path, dims: list[int], single_slice: bool) -> tuple[int, int, int]:
    text = "x".join(map(str, dims))
    if any(n < 1 for n in dims):
        raise fault(path, f"claims a size of {text} voxels", "its header is damaged, so export the scan again")
    while len(dims) > 3 and dims[-1] == 1:
        dims = dims[:-1]
    if len(dims) > 3:
        raise fault(path, f"is a {len(dims)}D series ({text})", "give one 3D volume of it")
    if len(dims) < 3 or (1 in dims and not single_slice):
        raise fault(path, f"is a 2D image ({text})", "give the whole 3D volume")
    return (dims[0], dims[1], dims[2])


def _dtype(path: Path, raw: Any) -> np.dtype[Any]:
    try:
        dtype = np.dtype(raw.get_data_dtype())
    except (KeyError, HeaderDataError, TypeError):
        dtype = np.dtype("V")
    return _real(path, dtype)


def _real(path: Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type, if it is one of real numbers."""
    if dtype.kind in "iuf":
        return dtype
    name = "colour" if dtype.names else "complex" if dtype.kind == "c" else "unknown"
    raise fault(
        path, f"has a voxel type that cannot be used ({name})", "give one real number a voxel, such as int16 or float32"
    )


def _header(
    path: Path,
    size: int,
    shape: tuple[int, int, int],
    affine: Affine,
    dtype: np.dtype[Any],
    offset: int = 0,
    layers: int = 1,
    packed: bool = False,
) -> Header:
    """The checks that all formats share: size, then voxel size and affine."""
    packed = packed or is_gzipped(path)
    voxels = math.prod(shape) * layers
    end = offset + voxels * dtype.itemsize
    text = "x".join(map(str, shape))
    if voxels * max(dtype.itemsize, 4) > MAX_BYTES:
        raise fault(
            path,
            f"claims {text} voxels ({voxels * dtype.itemsize / 2**30:,.1f} GiB)",
            "its header is damaged, or it must be resampled to fewer voxels first",
        )
    if packed and end > size * DEFLATE_RATIO:
        raise fault(path, f"claims {text} voxels, more than its {size:,} bytes can hold", AGAIN)
    if not packed and end > size:
        raise fault(path, f"is cut short (it needs {end:,} bytes and has {size:,})", AGAIN)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if not np.all(np.isfinite(affine)):
        raise fault(path, "has an affine that is not finite", "correct its header or export the scan again")
    if np.any(spacing == 0):
        raise _bad_spacing(path, spacing)
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-4:
        raise fault(path, "has a singular affine (its axes do not span space)", "correct its header")
    if np.any(spacing < SMALLEST_MM) or np.any(spacing > LARGEST_MM):
        raise _bad_spacing(path, spacing)
    order = ">" if dtype.newbyteorder(">") == dtype and dtype.itemsize > 1 else "<"
    return Header(shape, affine, dtype.newbyteorder("=").name, end, order, files=(path,), layers=layers)


def _bad_spacing(path: Path, spacing: NDArray[np.float64]) -> ExclusionError:
    mm = " x ".join(f"{s:g}" for s in spacing)
    return fault(
        path,
        f"has voxels of {mm} mm",
        f"sizes from {SMALLEST_MM:g} to {LARGEST_MM:g} mm are usable, so correct its header",
    )


def no_geometry(path: Path, affine: Affine, shape: Sequence[int]) -> str:
    """A warning where the affine is one that was never set; else empty.

    That is the identity, or one that mirrors axes alone; or voxels of 1 mm about the volume's middle, which is what a
    NIfTI with neither sform nor qform is read as. No scanner counts its millimetres from there.
    """
    step, origin = affine[:3, :3], affine[:3, 3]
    middle = -step @ ((np.asarray(shape, float) - 1) / 2)
    if not np.array_equal(np.abs(step), np.eye(3)) or (origin.any() and not np.array_equal(origin, middle)):
        return ""
    what = "1 mm about the middle" if origin.any() else "the identity"
    return (
        f"{path} has {what} for an affine, as files without a geometry have, so each voxel counts as 1 mm³ and no "
        "volume in ml or distance in mm can be trusted: convert it again from its source, with its voxel size."
    )


def places_of(path: Path, header: Header, value: int | str) -> list[tuple[int, int]]:
    """Where a label is: (layer, value of the label map on it).

    Args:
      value: the number in the label map, or the name of a segment.

    Raises:
      ExclusionError: there is no segment of the name, or the number is of several on different layers.
    """
    if isinstance(value, int):
        same = [s for s in header.segments if s.value == value]
        if header.layers > 1 and len(same) > 1:
            names = " and ".join(f"'{s.name}'" for s in same)
            raise fault(path, f"has overlapping segments of the value {value} ({names})", "name the one that is meant")
        return [(s.layer, value) for s in same] or [(layer, value) for layer in range(header.layers)]
    if not header.segments:
        raise fault(path, f"names no segments, so '{value}' is not found in it", "give the values as numbers")
    same = [s for s in header.segments if s.name.strip().lower() == value.strip().lower()]
    if not same:
        listed = ", ".join(f"'{s.name}' {s.value}" for s in header.segments)
        raise fault(path, f"has no segment named '{value}' (it has {listed})", "correct the name")
    return [(s.layer, s.value) for s in same]


def named_values(header: Header, values: Sequence[int]) -> str:
    """Some label values for a message, with the names of the segments that have them."""

    def named(value: int) -> str:
        names = " and ".join(f"'{s.name}'" for s in header.segments if s.value == value)
        return f"{value} ({names})" if names else str(value)

    more = f" and {len(values) - _NAMED_VALUES} more" if len(values) > _NAMED_VALUES else ""
    return ", ".join(map(named, values[:_NAMED_VALUES])) + more
