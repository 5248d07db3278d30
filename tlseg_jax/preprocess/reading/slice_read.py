"""One volume's files, read into the axial slices that the 2D network takes, and predictions back into its space.

Which axis is axial is the affine's to say, not the array's: the volume is taken on the RAS axes nearest to its
own ("canonical" below), with no interpolation between slices. Both files stream by, and of the image only the
slices wanted are kept, so that memory stays far below the volume as float32.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.geometry import Affine, Grid, canonical_grid
from tlseg_jax.preprocess.codes import anywhere, looked, shown, voxels_of
from tlseg_jax.preprocess.reading.grey_values import GreyValues
from tlseg_jax.preprocess.reading.header import Header, no_geometry, read_header
from tlseg_jax.preprocess.reading.label_codes import check_no_others, read_label_codes
from tlseg_jax.preprocess.reading.planes import VoxelDigest, check_finite, scaled, stream_planes
from tlseg_jax.preprocess.reading.same_grid import read_others, turn_onto, turned
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.reading.scan_file import fault
from tlseg_jax.preprocess.reading.slice_scale import SliceScale, Statistics, not_hounsfield, scaling_of
from tlseg_jax.preprocess.slice_choice import choose_slices, fewer_than_asked, with_neighbours
from tlseg_jax.preprocess.slice_resize import Resizer, plan_axes, planes_on_scan, resized_affine


@dataclasses.dataclass(frozen=True, eq=False)
class SliceVolume:
    """A volume's slices, scaled and resized.

    Attributes:
      label: codes of the structures; None where there is no label map.
      z: of each plane its slice of the canonical volume, counted from the feet.
      samples: which of the planes are samples; the others are their neighbours.
      affine: (4, 4), (x, y of a plane, slice of the canonical volume) -> RAS mm.
      scan_shape: voxels on the file's axes.
      scan_affine: (4, 4), voxel of the file -> RAS mm.
      scaling: how grey values became the image's.
      label_ml: structure -> ml in the whole scan.
      label_slices: structure -> slices of the whole scan that show it.
      label_voxels: structure -> its voxels in the slice of each sample, in the label map's own.
      image_voxels: checksum of the image's voxels (see `VoxelDigest`).
      seconds: "read": of reading, scaling and resizing.
      warnings: a sentence each.
      doubts: of what makes every number of this volume doubtful: what is wrong, in words -> a sentence.
    """

    image: Float32[np.ndarray, "planes x y"]
    label: UInt8[np.ndarray, "planes x y"] | None
    z: tuple[int, ...]
    samples: tuple[int, ...]
    affine: Affine
    scan_shape: tuple[int, int, int]
    scan_affine: Affine
    scaling: SliceScale
    label_ml: dict[str, float]
    label_slices: dict[str, int]
    label_voxels: dict[str, list[int]]
    image_voxels: str
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    doubts: dict[str, str]


def read_volume(files: ScanFiles, spec: DatasetSpec, every_slice: bool = False) -> SliceVolume:
    """Read and check one volume and take the slices that `spec` asks for.

    Args:
      every_slice: take every slice, whatever `spec` says, as prediction does; the label map may then be missing
        or empty.

    Raises:
      ExclusionError: a file cannot be read (see `read_header`), the grids differ, a voxel of the image is not finite
        or all are equal, no slice shows a structure, or the label map holds other values (see `read_label_codes`).
    """
    begin = time.perf_counter()
    header = read_header(files.image, single_slice=True)
    others, notes = read_others(dataclasses.replace(files, mask=None), header, single_slice=True)
    orientation = io_orientation(header.affine)
    canonical = canonical_grid(header.grid)
    sides = canonical.shape
    if min(sides[:2]) < 2:
        text = "x".join(map(str, sides))
        raise fault(files.image, f"is a single line of pixels in each axial slice ({text})", "give an axial volume")
    label, shows = None, np.zeros((sides[2], len(spec.structures)), bool)
    if files.label is not None:
        label_header = others[files.label]
        found = read_label_codes(files.label, label_header, spec.labels)
        if spec.planes.other_values == "refuse":
            check_no_others(files.label, label_header, spec.labels, found, spec.name)
        label = turned(found.codes, turn_onto(header, label_header))
        shows = _shown(looked(label, spec.labels), orientation, spec)
    elif not every_slice:
        raise fault(files.image, "has no label map", "add one, or leave the scan out")
    if files.label is not None and not every_slice and not shows.any():
        names = " or ".join(spec.structures)
        raise fault(files.label, f"has no slice that shows {names}", "label it, leave it out, or check `structures`")

    wanted = 0 if every_slice else spec.planes.with_structure
    shows_any = [bool(row.any()) for row in shows]
    chosen = choose_slices(shows_any, wanted, spec.planes.without_structure)
    z = chosen if every_slice else with_neighbours(chosen, sides[2], spec.planes.neighbours)

    axes = plan_axes(sides[:2], canonical.spacing[:2], spec)
    resizer = Resizer(axes)
    codes = None
    label_ml: dict[str, float] = {}
    label_voxels: dict[str, list[int]] = {}
    statistics, labelled = Statistics(header.shape), None
    if label is not None:
        label_ml = {s: n * header.grid.voxel_ml for s, n in voxels_of(found.codes, spec.labels).items()}
        labelled = anywhere(statistics.sampled(label))
        whole = apply_orientation(label, orientation)
        codes = np.empty((len(z), *spec.planes.pixels), np.uint8)
        for n, slice_ in enumerate(z):
            codes[n] = resizer.label(
                whole[:, :, slice_], len(spec.structures), spec.exclusive, spec.unmarked_value is not None
            )
        counts = [voxels_of(whole[:, :, c], spec.labels) for c in chosen]
        label_voxels = {s: [n[s] for n in counts] for s in spec.structures}
        del whole, label, found  # before the image comes
    digest = VoxelDigest(header.shape)
    planes = _wanted_planes(files.image, header, orientation, z, statistics, digest)
    scaling = scaling_of(files.image, statistics, spec)
    image = np.empty((len(z), *spec.planes.pixels), np.float32)
    for n in range(len(z)):
        image[n] = resizer.image(scaling.apply(planes.pop(0)), scaling.lowest)
    lacks = fewer_than_asked(chosen, shows_any, wanted, spec.planes.without_structure)
    doubts = {
        "seem not to be in Hounsfield units": not_hounsfield(files.image, statistics, spec, labelled),
        "have no geometry": no_geometry(files.image, header.affine, header.shape),
    }
    warnings = (*notes, f"{files.image} has {lacks}: all are taken." if lacks else "")
    return SliceVolume(
        image,
        codes,
        z,
        tuple(z.index(c) for c in chosen),
        resized_affine(canonical.affine, axes),
        header.shape,
        header.affine,
        scaling,
        label_ml,
        {s: int(n) for s, n in zip(spec.structures, shows.sum(0), strict=True)} if label_ml else {},
        label_voxels,
        digest.hex,
        {"read": round(time.perf_counter() - begin, 3)},
        tuple(w for w in warnings if w),
        {k: w for k, w in doubts.items() if w},
    )


def planes_to_scan(planes: Float32[np.ndarray, "planes x y"], volume: SliceVolume) -> Float32[np.ndarray, "i j k"]:
    """Predictions of a volume's planes, linearly interpolated onto the scan's own voxels.

    Args:
      planes: one for each of `volume.z`, such as probabilities of one structure.

    Returns:
      `volume.scan_shape`, in the file's own axes; zero where nothing was predicted.
    """
    out = np.zeros(volume.scan_shape, np.float32)
    view = apply_orientation(out, io_orientation(volume.scan_affine))  # writes to it reach `out`
    back = planes_on_scan(planes, volume.affine, Grid(volume.scan_shape, volume.scan_affine))
    for plane, z in zip(back, volume.z, strict=True):
        view[:, :, z] = plane
    return out


def _shown(codes: NDArray[np.uint8], orientation: NDArray[Any], spec: DatasetSpec) -> NDArray[np.bool_]:
    """(slices, structures): which structures each slice shows, of a label map in the file's own axes."""
    depth_axis = _depth_axis(orientation)
    others = tuple(i for i in range(3) if i != depth_axis)
    seen = shown(codes, len(spec.structures), spec.exclusive, others)
    return seen[::-1] if orientation[depth_axis, 1] < 0 else seen


def _depth_axis(orientation: NDArray[Any]) -> int:
    return int(np.flatnonzero(orientation[:, 0] == 2)[0])


def _wanted_planes(
    path: Path,
    header: Header,
    orientation: NDArray[Any],
    z: tuple[int, ...],
    statistics: Statistics,
    digest: VoxelDigest,
) -> list[NDArray[Any]]:
    """The canonical planes `z` of the image, in its own units; all planes go through `statistics` and `digest`."""
    depth_axis = _depth_axis(orientation)
    depth = header.shape[depth_axis]
    flipped = orientation[depth_axis, 1] < 0
    at = {depth - 1 - k if flipped else k: k for k in z}  # along the file's axis -> canonical
    kept: dict[int, NDArray[Any]] = {}
    grey = GreyValues()
    block: NDArray[Any] | None = None  # (planes of the file, slices wanted, pixels), where each plane crosses them all
    turn = np.delete(orientation, depth_axis, axis=0)  # of a plane across that axis: (left to right, back to front)
    for k, stored in enumerate(stream_planes(path, header)):
        plane = _values(path, header, stored)
        statistics.add(plane)
        grey.add(plane)
        digest.add(plane)
        if depth_axis != 2:
            crossed = (plane if depth_axis == 0 else plane.T)[list(at)]
            if block is None:
                block = np.empty((header.shape[2], *crossed.shape), plane.dtype)
            block[k] = crossed
        elif k in at:
            kept[at[k]] = apply_orientation(plane, turn)
    grey.check(path)
    if block is not None:
        kept = {c: apply_orientation(block[:, n].T, turn) for n, c in enumerate(at.values())}
    return [kept[k] for k in z]


def _values(path: Path, header: Header, stored: NDArray[Any]) -> NDArray[Any]:
    """A plane in the scan's units: as it is stored where that is small and unscaled, else as float32."""
    if stored.dtype.kind in "iu" and not header.scaled and stored.dtype.itemsize <= 4:
        return stored
    values = scaled(header, stored)
    check_finite(path, values, f"voxels of one of its {math.prod(header.shape[2:])} planes")
    return values
