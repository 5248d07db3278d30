"""One volume from its files to the store of slices, with its record; what a worker process does."""

import re
import time
from typing import Any

import numpy as np

from tlseg_jax.preprocess.codes import UNMARKED, mask_of, shown
from tlseg_jax.preprocess.reading.scan import ExclusionError
from tlseg_jax.preprocess.reading.slice_read import SliceVolume, read_volume
from tlseg_jax.preprocess.store.records import Job, before_arrays, keep_exclusion, keep_record, origin
from tlseg_jax.preprocess.store.slice_store import write_slices


def prepare_slices_of(job: Job) -> dict[str, Any] | str:
    """Read one volume, take its slices and write them to the store.

    Returns:
      Its record in the manifest, or one sentence that says why it is excluded.

    Raises:
      OSError: or what the libraries make of it: the result cannot be written, as on a full disk.
    """
    try:
        volume = read_volume(job.files, job.spec)
        record = _record(job, volume)
    except ExclusionError as e:
        return keep_exclusion(job, str(e))
    except Exception as e:  # one volume that trips a library must not end the others' work
        return keep_exclusion(
            job, f"{job.files.image} failed with an unexpected {type(e).__name__} ({e}): please report this."
        )
    assert volume.label is not None
    start = time.perf_counter()
    before_arrays(job)
    write_slices(job.folder / "subjects" / f"{job.files.subject}.zarr", volume.image, volume.label)
    record["seconds"]["write"] = round(time.perf_counter() - start, 3)
    return keep_record(job, record)


def _record(job: Job, volume: SliceVolume) -> dict[str, Any]:
    assert volume.label is not None
    label = volume.label[list(volume.samples)]
    if job.spec.unmarked_value is not None:
        label[label == UNMARKED] = 0
    exclusive, structures = job.spec.exclusive, job.spec.structures
    seen = shown(label, len(structures), exclusive, (1, 2))
    bits = [sum(int(there) << i for i, there in enumerate(plane)) for plane in seen]
    pixels = {
        s: [int(np.count_nonzero(mask_of(plane, i, exclusive))) for plane in label] for i, s in enumerate(structures)
    }
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
            "scaling": volume.scaling.to_dict(),
            "label_pixels": pixels,
            "warnings": list(volume.warnings),
            "doubts": volume.doubts,
        },
    }


def first_samples(record: dict[str, Any], count: int) -> dict[str, Any]:
    """The record with its first `count` samples alone; the arrays keep what they hold."""
    pixels = {s: n[:count] for s, n in record["details"]["label_pixels"].items()}
    voxels = {s: n[:count] for s, n in record.get("label_voxels", {}).items()}
    return record | {
        "samples": record["samples"][:count],
        "bits": record["bits"][:count],
        **({"label_voxels": voxels} if voxels else {}),
        "details": record["details"] | {"label_pixels": pixels},
    }


def natural_order(subject: str) -> tuple[Any, ...]:
    """A key that puts volume-2 before volume-10."""
    parts = [p for p in re.split(r"(\d+)", subject) if p]
    return (*((0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts), (-1, 0, subject))
