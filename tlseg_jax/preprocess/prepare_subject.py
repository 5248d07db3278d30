"""One subject from its files to the store, with its record; what a worker process does."""

import contextlib
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.codes import anywhere, voxels_of
from tlseg_jax.preprocess.map_pipeline import PreparedMap, preprocess_map
from tlseg_jax.preprocess.pipeline import Prepared, needs_registration, preprocess_scan
from tlseg_jax.preprocess.reading.grey_values import check_grey
from tlseg_jax.preprocess.reading.header import no_geometry
from tlseg_jax.preprocess.reading.planes import digest_of
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan
from tlseg_jax.preprocess.steps import crop, register
from tlseg_jax.preprocess.store.records import Job, Reading, json_key, origin, read_json_if_any
from tlseg_jax.preprocess.store.store import write_map, write_subject
from tlseg_jax.runtime.files import write_json

REGISTRATIONS = ".registrations"
"""Folder of the store's root where registrations are kept: data sets of the same scans share them."""


def read_subject(job: Job) -> Reading:
    """Read one subject and preprocess it; see `records.Reading`."""
    start = time.perf_counter()
    scan = read_scan(job.files, job.spec.labels)
    read = round(time.perf_counter() - start, 3)
    done: Prepared | PreparedMap
    seconds: dict[str, float] = {}
    details: dict[str, Any] = {}
    if job.settings.from_labels:
        done = preprocess_map(scan, job.spec, job.settings, str(job.files.image))
    else:
        check_grey(job.files.image, scan.image)
        known, seconds, details = _registration(job, scan)
        done = preprocess_scan(scan, job.spec, job.settings, known, str(job.files.image))
    assert done.label is not None and scan.label is not None
    shown = anywhere(done.label)
    voxel_ml = Grid(scan.image.shape, scan.affine).voxel_ml
    doubt = no_geometry(job.files.image, scan.affine, scan.image.shape)
    record = {
        **origin(job.files),
        "split": "train",
        "shape": list(done.grid.shape),
        "affine": done.grid.affine.tolist(),
        "space_to_world": done.space_to_world.tolist(),
        "scan_shape": list(scan.image.shape),
        "scan_affine": np.asarray(scan.affine, float).tolist(),
        **{f"{k}_sha256": job.source.get(k, {}).get("sha256") for k in ("image", "label", "mask")},
        "image_voxels": digest_of(scan.image),
        "fingerprint": job.fingerprint,
        "label_voxels": voxels_of(done.label, job.spec.labels),
        # In the person, not in the common space, where heads are all of one size.
        "label_ml": {s: n * voxel_ml for s, n in voxels_of(scan.label, job.spec.labels).items()},
        "label_values": [list(v) for v in scan.label_values],
        "label_right": dict(done.label_right),
        "centre_of_mass": list(crop.centre_of_mass(shown)),
        "label_box": crop.tight_box(shown).to_dict(),
        "seconds": {"read": read} | seconds | done.seconds,
        "details": details
        | done.details
        | {"warnings": list(scan.warnings)}
        | ({"doubts": {"have no geometry": doubt}} if doubt else {}),
    }
    if isinstance(done, PreparedMap):
        counts = np.bincount(done.classes.ravel(), minlength=len(done.values))
        record |= {"class_values": list(done.values), "class_voxels": counts.tolist()}
        return record, functools.partial(write_map, classes=done.classes, label=done.label)
    return record, functools.partial(write_subject, image=_image(done, job.files.image), label=done.label)


def _image(done: Prepared, path: Path) -> NDArray[np.float16]:
    image = done.image.astype(np.float16)
    if not np.isfinite(image).all():
        raise ExclusionError(
            f"{path} has voxels more than 65,000 standard deviations from the mean: remove these outliers."
        )
    return image


def _registration(job: Job, scan: Scan) -> tuple[Affine | None, dict[str, float], dict[str, Any]]:
    """The registration this scan needs, from the cache or newly made; its seconds; its figures."""
    if not needs_registration(scan, job.spec, job.settings):
        return None, {}, {}
    start = time.perf_counter()
    key = json_key({"image": job.source["image"]["sha256"], "parameters": register.PARAMETERS})
    path = job.folder.parent / REGISTRATIONS / f"{key}.json"
    kept = read_json_if_any(path)
    if kept is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            matrix = np.array(kept["mni_to_world"], float)
            if matrix.shape == (4, 4) and np.isfinite(matrix).all():
                return matrix, {"register": 0.0}, {"registration": kept["figures"] | {"reused": True}}
    found = register.register(scan.image, scan.affine, str(job.files.image))
    figures = {"information": found.information, "scales": list(found.scales)}
    seconds = {"register": round(time.perf_counter() - start, 3)}
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"image": str(job.files.image), "mni_to_world": found.mni_to_world.tolist(), "figures": figures})
    return found.mni_to_world, seconds, {"registration": figures}
