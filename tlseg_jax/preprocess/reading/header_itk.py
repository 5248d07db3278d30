"""What NRRD and MetaImage files say of their voxels, through SimpleITK; whose world is LPS, and ours is RAS."""

import dataclasses
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tlseg_jax.geometry import Affine
from tlseg_jax.preprocess.reading.formats import META, data_file, extension_of, parts_of
from tlseg_jax.preprocess.reading.scan_file import AGAIN, fault

_NAMES = ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32", "Float64")
_DTYPES = {getattr(sitk, f"sitk{v}{n}"): np.dtype(n.lower()) for v in ("", "Vector") for n in _NAMES}
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Segment:
    """One segment of a `.seg.nrrd` (3D Slicer).

    Attributes:
      name: as the user sees it, such as "Left caudate".
      value: in the label map of its layer.
      layer: segments that overlap are on different layers, each a label map.
    """

    name: str
    value: int
    layer: int


@dataclasses.dataclass(frozen=True, eq=False)
class ItkVolume:
    """What headers that SimpleITK reads say of a volume.

    Attributes:
      files: it is made of; of a DICOM series a slice each, in order along the third axis.
      size: voxels on each axis of the file, of which there may be more or fewer than three.
      affine: (4, 4) voxel -> RAS mm, of the first three axes.
      dtype: of one value (rescaled, of DICOM); of kind "V" where it is none that we know.
      components: values a voxel.
      segments: of a `.seg.nrrd`, else none.
      oriented: whether the file says which way its axes point.
    """

    files: tuple[Path, ...]
    size: tuple[int, ...]
    affine: Affine
    dtype: np.dtype[Any]
    components: int = 1
    segments: tuple[Segment, ...] = ()
    oriented: bool = True


def open_itk(path: Path, io: str = "") -> sitk.ImageFileReader:
    """A reader that has read the header of a file.

    Args:
      io: SimpleITK's name of the format; empty goes by the ending.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(io or ("MetaImageIO" if extension_of(path) in META else "NrrdImageIO"))
    reader.ReadImageInformation()
    return reader


def dtype_of(reader: sitk.ImageFileReader) -> np.dtype[Any]:
    """The type of one value; of kind "V" where it is none that we know."""
    return _DTYPES.get(reader.GetPixelIDValue(), np.dtype("V"))


def ras_affine(origin: Any, columns: NDArray[np.float64]) -> Affine:
    """(4, 4) voxel -> RAS mm from the origin and the steps along the axes (columns of 3) in LPS mm."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    return np.asarray(_TO_RAS @ affine + 0.0, np.float64)  # no minus nought


def itk_information(path: Path) -> ItkVolume:
    """The header of a `.nrrd`, `.nhdr`, `.mha` or `.mhd`.

    Raises:
      RuntimeError: SimpleITK cannot read it.
    """
    reader = open_itk(path)
    n = reader.GetDimension()
    direction = np.array(reader.GetDirection(), float).reshape(n, n)
    columns, origin = np.eye(3), np.zeros(3)
    m = min(n, 3)
    columns[:m, :m] = direction[:m, :m] * np.array(reader.GetSpacing(), float)[:m]
    origin[:m] = reader.GetOrigin()[:m]
    components = int(reader.GetNumberOfComponents())
    keys = reader.GetMetaDataKeys()
    oriented = extension_of(path) in META or "NRRD_space" in keys
    return ItkVolume(
        parts_of(path),
        tuple(map(int, reader.GetSize())),
        ras_affine(origin, columns),
        dtype_of(reader),
        components,
        _segments({k: reader.GetMetaData(k).strip() for k in keys if k.startswith("Segment")}, components),
        oriented,
    )


def _segments(about: dict[str, str], layers: int) -> tuple[Segment, ...]:
    """The segments in order. Files of before 2020 give no values and keep each segment on a layer of its own."""
    numbers = sorted({int(m.group(1)) for k in about if (m := re.match(r"Segment(\d+)_", k))})
    out = []
    for i in numbers:
        name = about.get(f"Segment{i}_Name") or about.get(f"Segment{i}_ID") or f"Segment{i}"
        layer = int(about.get(f"Segment{i}_Layer", i if layers > 1 else 0))
        out.append(Segment(name, int(about.get(f"Segment{i}_LabelValue", 1)), layer))
    return tuple(out)


def check_meta_data(path: Path, wanted: int) -> None:
    """Check the voxels of a MetaImage as far as SimpleITK does not: it takes damaged zlib data for whole ones.

    Args:
      path: a `.mha` or `.mhd`.
      wanted: bytes of the voxels, decompressed.

    Raises:
      ExclusionError: there are fewer.
      zlib.error: compressed data are damaged.
    """
    apart = data_file(path)
    with path.open("rb") as f:
        head = b""
        for line in f:
            head += line
            if line.lower().startswith(b"elementdatafile"):
                break
        start = f.tell()
    zipped = re.search(rb"^CompressedData\s*=\s*True", head, re.IGNORECASE | re.MULTILINE) is not None
    if apart is None and not re.search(rb"ElementDataFile\s*=\s*LOCAL", head, re.IGNORECASE):
        return  # a list of files, which SimpleITK misses where one does
    data, offset = (path, start) if apart is None else (apart, 0)
    if not data.exists():
        raise fault(path, f"names its voxels' file {data.name}, which is not beside it", AGAIN)
    if not zipped:
        got = data.stat().st_size - offset
    else:
        got, unzip = 0, zlib.decompressobj()
        with data.open("rb") as f:
            f.seek(offset)
            while not unzip.eof and (content := unzip.unconsumed_tail or f.read(_CHUNK)):
                got += len(unzip.decompress(content, _CHUNK))
    if got < wanted or (zipped and not unzip.eof):
        raise fault(data, f"is cut short (it needs {wanted:,} bytes of voxels and holds {got:,})", AGAIN)
