"""Look at a scan and its segmentation in a notebook, with NiiVue."""

import gzip
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.actions.model import scan_files
from tlseg_jax.evaluate.predict import Prediction
from tlseg_jax.geometry import Affine
from tlseg_jax.preprocess.reading.formats import is_dicom_folder
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.runtime.errors import InputError


def view(scan: Any, segmentation: Any = None, opacity: float = 0.5, height: int = 400) -> Any:
    """A NiiVue widget of a scan, with a segmentation over it: see `tlseg_jax.view`."""
    try:
        import ipyniivue
    except ImportError:
        raise InputError("`view` needs ipyniivue: pip install 'tlseg-jax[notebook]'.") from None
    below = _image(scan)
    volumes = [_volume(below, "scan", colormap="gray")]
    if segmentation is not None:
        over = segmentation
        if isinstance(over, np.ndarray):
            affine, shape = _grid(below)
            if over.shape != shape:
                raise InputError(f"`segmentation` has shape {over.shape} and the scan {shape}: give that of this scan.")
            over = (over, affine)
        elif isinstance(over, Prediction):
            over = (over.label, over.affine)
        over = over if isinstance(over, tuple) else _image(over)
        volumes.append(_volume(over, "segmentation", colormap="random", opacity=opacity))
    widget = ipyniivue.NiiVue(height=height)
    widget.load_volumes(volumes)
    return widget


def _image(given: Any) -> Any:
    """A path as `Path`, a DICOM folder as its voxels and affine, and an image as it is."""
    if not isinstance(given, str | os.PathLike):
        return given
    files = scan_files(Path(given))
    if not is_dicom_folder(files.image):
        return files.image
    read = read_scan(files)
    return read.image, read.affine


def _grid(image: Any) -> tuple[Affine, tuple[int, ...]]:
    if isinstance(image, Path):
        image = read_scan(scan_files(image))
        return image.affine, image.image.shape
    if isinstance(image, tuple):
        return image[1], image[0].shape
    return image.affine, image.shape


def _volume(image: Any, name: str, **how: Any) -> dict[str, Any]:
    """What ipyniivue takes: a file that NiiVue reads itself, or a NIfTI file's bytes."""
    if isinstance(image, Path):
        return {"path": str(image), **how}
    voxels, affine = image if isinstance(image, tuple) else (np.asanyarray(image.dataobj), image.affine)
    made = nib.Nifti1Image(_plain(voxels), affine)
    return {"data": gzip.compress(made.to_bytes()), "name": f"{name}.nii.gz", **how}


def _plain(voxels: NDArray[Any]) -> NDArray[Any]:
    """Of a type that every viewer reads."""
    kind = np.uint8 if voxels.dtype == bool else np.int32 if voxels.dtype.kind in "iu" else np.float32
    return voxels if voxels.dtype in (np.uint8, np.int16, np.float32) else voxels.astype(kind)
