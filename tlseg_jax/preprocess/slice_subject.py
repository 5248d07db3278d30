"""One volume from its files to the store of slices, with its record; what a worker process does."""

import dataclasses
import functools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.preprocess.codes import looked, shown, voxels_of
from tlseg_jax.preprocess.reading.slice_read import SliceVolume, read_volume
from tlseg_jax.preprocess.store.records import Job, Reading, origin
from tlseg_jax.preprocess.store.slice_store import write_slices


def read_slices(job: Job) -> Reading:
    """Read one volume and take its slices; see `records.Reading`."""
    volume = read_volume(job.files, job.spec)
    assert volume.label is not None
    return _record(job, volume, volume.label), functools.partial(write_slices, image=volume.image, label=volume.label)


def _record(job: Job, volume: SliceVolume, planes: NDArray[np.uint8]) -> dict[str, Any]:
    label = looked(planes[list(volume.samples)], job.spec.labels)
    seen = shown(label, len(job.spec.structures), job.spec.exclusive, (1, 2))
    bits = [sum(int(there) << i for i, there in enumerate(plane)) for plane in seen]
    counts = [voxels_of(plane, job.spec.labels) for plane in label]
    return {
        **origin(job.files, mask=False),
        "split": "train",
        **{f"{k}_sha256": job.source.get(k, {}).get("sha256") for k in ("image", "label")},
        "image_voxels": volume.image_voxels,
        "fingerprint": job.fingerprint,
        "order": 0,
        "scan_shape": list(volume.scan_shape),
        "scan_affine": volume.scan_affine.tolist(),
        "shape": list(volume.image.shape),
        "affine": volume.affine.tolist(),
        "planes": list(volume.z),
        "samples": list(volume.samples),
        "bits": bits,
        "label_ml": volume.label_ml,
        "label_slices": volume.label_slices,
        "label_voxels": volume.label_voxels,
        "seconds": dict(volume.seconds),
        "details": {
            "scaling": dataclasses.asdict(volume.scaling),
            "label_pixels": {s: [n[s] for n in counts] for s in job.spec.structures},
            "warnings": list(volume.warnings),
            "doubts": volume.doubts,
        },
    }


def natural_order(subject: str) -> tuple[Any, ...]:
    """A key that puts volume-2 before volume-10."""
    parts = [p for p in re.split(r"(\d+)", subject) if p]
    return (*((0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts), (-1, 0, subject))
