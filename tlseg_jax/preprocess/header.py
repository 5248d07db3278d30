"""A scan file's header, read and checked without touching its voxels: milliseconds a file.

Every fault that the header alone shows is found here, before anything large is allocated.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader
from nibabel.spatialimages import HeaderDataError

from tlseg_jax.preprocess.geometry import Affine, Grid
from tlseg_jax.preprocess.scan import ExclusionError
from tlseg_jax.preprocess.scan_file import AGAIN, fault, is_gzipped, one_sentence, open_plain

EXTENSIONS = (".nii.gz", ".nii", ".mgz", ".mgh")
"""The file names that are read: NIfTI-1, NIfTI-2 and FreeSurfer's MGH, plain or gzipped."""

MAX_BYTES = 4 << 30
"""Largest volume, in bytes as float32, that is read: a cube of 1024 voxels a side."""

DEFLATE_RATIO = 1032
"""Deflate cannot shrink data by more than this (RFC 1951: 258 bytes in two bits)."""

SMALLEST_MM, LARGEST_MM = 0.05, 20.0
"""Voxel sizes outside this range are a unit or header error, not a scan of a person."""

_HEAD_BYTES = 544  # a NIfTI-2 header and its extension flag, the longest of the formats
_CORNER_MM = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What a file says of its voxels, checked.

    Attributes:
      shape: voxels on the file's three axes; trailing axes of 1 are dropped.
      affine: (4, 4) float64, voxel index -> RAS mm, as nibabel chooses it (sform, qform, then neither).
      spacing: voxel size in mm.
      axcodes: where each axis points, such as "LAS".
      dtype: NumPy name of the stored type, such as "int16".
      sform_code: NIfTI code of the sform; 1 (scanner) for MGH, whose coordinates are the scanner's.
      qform_code: the same of the qform.
      scaled: whether stored values are multiplied or shifted (scl_slope, scl_inter).
      end: bytes of the (decompressed) file up to the end of the voxels.
      byteorder: of the stored values, "<" or ">" (as NumPy writes it).
      slope: stored values are multiplied by it, then `inter` is added.
      inter: see `slope`.
    """

    shape: tuple[int, int, int]
    affine: Affine
    spacing: tuple[float, float, float]
    axcodes: str
    dtype: str
    sform_code: int
    qform_code: int
    scaled: bool
    end: int
    byteorder: str = "<"
    slope: float = 1.0
    inter: float = 0.0

    @property
    def grid(self) -> Grid:
        """The voxel grid."""
        return Grid(self.shape, self.affine)


def read_header(path: Path, single_slice: bool = False) -> Header:
    """Read and check the header of a NIfTI-1, NIfTI-2, MGH or MGZ file.

    Args:
      path: the file.
      single_slice: accept a volume of one slice, (x, y, 1), as data sets of slices may hold.

    Raises:
      ExclusionError: the file is missing, unreadable or not of these formats; it is not one 3D volume
        of real numbers; it claims more voxels than it can hold or than 4 GiB of float32; or its
        affine is singular or its voxels are smaller than 0.05 mm or larger than 20 mm.
    """
    if not path.name.lower().endswith(EXTENSIONS):
        raise fault(path, "is not named as an image", f"give a file that ends in {', '.join(EXTENSIONS)}")
    with one_sentence(path):
        size = path.stat().st_size
        with path.open("rb") as f:
            start = f.read(_HEAD_BYTES)
        if not start:
            raise fault(path, "is empty", AGAIN)
        _check_compression(path, start)
        if is_gzipped(path):
            with open_plain(path) as f:
                start = f.read(_HEAD_BYTES)
        if path.name.lower().endswith((".mgz", ".mgh")):
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
    dims = [int(n) for n in raw["dim"]]
    if not 1 <= dims[0] <= 7:
        raise fault(path, "claims an impossible number of dimensions", "export the scan again as NIfTI")
    shape = _shape(path, dims[1 : dims[0] + 1], single_slice)
    dtype = _dtype(path, raw)
    offset = float(raw["vox_offset"])
    # nibabel takes an offset of zero at its word and gives the header back as voxels.
    if not math.isfinite(offset) or offset < kind.sizeof_hdr + 4:
        raise fault(path, f"has an impossible voxel offset ({offset:g})", "export the scan again as NIfTI")
    # nibabel would turn a voxel size of zero into one and go on: ask before it does.
    zooms = np.asarray(raw["pixdim"][1:4], np.float64)
    if not np.all(np.isfinite(zooms)) or np.any(zooms == 0):
        raise _bad_spacing(path, zooms)
    raw.check_fix(error_level=40)
    slope, inter = raw.get_slope_inter()
    affine = np.array(raw.get_best_affine(), np.float64)
    scaling = (1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))
    codes = (int(raw["sform_code"]), int(raw["qform_code"]))
    return _header(path, size, shape, affine, dtype, int(offset), codes, scaling)


def _mgh(path: Path, start: bytes, size: int, single_slice: bool) -> Header:
    if len(start) < DATA_OFFSET or start[:4] != b"\0\0\0\1":
        raise fault(path, "has no MGH header", "export the scan again from FreeSurfer")
    raw = MGHHeader(start[: MGHHeader._hdrdtype.itemsize], check=False)
    shape = _shape(path, [int(n) for n in raw["dims"]], single_slice)
    dtype = _dtype(path, raw)
    affine = np.array(raw.get_affine(), np.float64)
    return _header(path, size, shape, affine, dtype, DATA_OFFSET, (1, 1), (1.0, 0.0))


def _shape(path: Path, dims: list[int], single_slice: bool) -> tuple[int, int, int]:
    text = "x".join(map(str, dims))
    if any(n < 1 for n in dims):
        raise fault(
            path, f"claims a size of {text} voxels", "its header is damaged, so export the scan again"
        )
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
    if dtype.kind in "iuf":
        return dtype
    name = "colour" if dtype.names else "complex" if dtype.kind == "c" else "unknown"
    raise fault(
        path,
        f"has a voxel type that cannot be used ({name})",
        "give one real number a voxel, such as int16 or float32",
    )


def _header(
    path: Path,
    size: int,
    shape: tuple[int, int, int],
    affine: Affine,
    dtype: np.dtype[Any],
    offset: int,
    codes: tuple[int, int],
    scaling: tuple[float, float],
) -> Header:
    """The checks that all formats share: size, then voxel size and affine."""
    voxels = math.prod(shape)
    end = offset + voxels * dtype.itemsize
    text = "x".join(map(str, shape))
    if voxels * max(dtype.itemsize, 4) > MAX_BYTES:
        raise fault(
            path,
            f"claims {text} voxels ({voxels * dtype.itemsize / 2**30:,.1f} GiB)",
            "its header is damaged, or it must be resampled to fewer voxels first",
        )
    if is_gzipped(path) and end > size * DEFLATE_RATIO:
        raise fault(path, f"claims {text} voxels, more than its {size:,} bytes can hold", AGAIN)
    if not is_gzipped(path) and end > size:
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
    axes = "".join(str(a) for a in nib.aff2axcodes(affine))
    mm = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    order = ">" if dtype.newbyteorder(">") == dtype and dtype.itemsize > 1 else "<"
    native = dtype.newbyteorder("=").name
    return Header(shape, affine, mm, axes, native, *codes, scaling != (1.0, 0.0), end, order, *scaling)


def _bad_spacing(path: Path, spacing: np.ndarray[Any, Any]) -> ExclusionError:
    mm = " x ".join(f"{s:g}" for s in spacing)
    return fault(
        path,
        f"has voxels of {mm} mm",
        f"sizes from {SMALLEST_MM:g} to {LARGEST_MM:g} mm are usable, so correct its header",
    )


def no_geometry(path: Path, affine: Affine) -> str:
    """A warning where the affine is the identity, or mirrors axes alone, as in a file that was given none; else empty.

    No scanner counts its millimetres from the middle of the first voxel.
    """
    if not np.array_equal(np.abs(affine), np.eye(4)):
        return ""
    return (
        f"{path} has the identity for an affine, so each voxel counts as 1 mm³ and no volume in ml or distance in mm "
        "can be trusted: convert it again from its source, with its voxel size."
    )


def check_same_grid(image_path: Path, image: Header, path: Path, other: Header) -> None:
    """Check that a label map or mask lies on its image's voxels.

    Raises:
      ExclusionError: the shapes differ, or a corner voxel lies more than 0.001 mm from the image's.
    """
    remedy = f"resample it to the grid of {image_path.name}"
    if other.shape != image.shape:
        a, b = ("x".join(map(str, h.shape)) for h in (other, image))
        raise fault(path, f"has {a} voxels and its image has {b}", remedy)
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in image.shape], [1], indexing="ij"), -1).reshape(-1, 4)
    apart = float(np.linalg.norm(corners @ (other.affine - image.affine).T, axis=1).max())
    if apart > _CORNER_MM:
        raise fault(path, f"lies up to {apart:.3g} mm away from its image (another affine)", remedy)
