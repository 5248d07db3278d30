"""How good is MeshNet, trained by others on real scans, without a label of the target? A table for `report --compare`.

    python -m benchmarks.zero_labels --meshnet=FOLDER --stores=DIR/mine,DIR/others --table=meshnet.csv

FOLDER is a model of brainchop (https://github.com/neuroneural/brainchop): model.json, model.bin and colormap.json. Each
test scan is segmented in its own voxels; each structure that has a class there is scored on the prepared grid, as
`finetune` scores, and in the scan's own voxels, as `evaluate --space=scan` does (test sets that end in _scan). The
classes have no side: voxels are of the side whose reference's centre is nearer.
"""

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from numpy.typing import NDArray

from benchmarks import flags as common_flags
from benchmarks import stores as store_flags
from benchmarks.measure import environment, write_result
from benchmarks.peers.meshnet import MeshNet
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.evaluate.results import result_name
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.preprocess.original import original_scan
from tlseg_jax.preprocess.steps.resample import mask_to_grid
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing

flags.adopt_module_key_flags(common_flags)
flags.adopt_module_key_flags(store_flags)

MESHNET = flags.DEFINE_string("meshnet", None, "Folder of the model.")
EVERY = flags.DEFINE_bool("every", False, "All scans, not only those for test: by folds each is tested in its turn.")
TABLE = flags.DEFINE_string("table", None, "The CSV file to write.")

Mask = NDArray[np.bool_]

CLASSES = {
    "lateral_ventricle": ("Lateral-Ventricle",),
    "thalamus": ("Thalamus",),
    "caudate": ("Caudate",),
    "putamen": ("Putamen",),
    "pallidum": ("Pallidum",),
    "hippocampus": ("Hippocampus",),
    "amygdala": ("Amygdala",),
    "accumbens": ("Accumbens-area",),
    "accumbens_area": ("Accumbens-area",),
}
"""Structure without its side -> classes of MeshNet."""


def without_side(structure: str) -> str:
    """A structure's name on whichever side."""
    return structure.removesuffix("_left").removesuffix("_right")


def on_side(mask: Mask, own: Mask, other: Mask) -> Mask:
    """The voxels of a mask that are nearer to the centre of one side's reference than to the other's."""
    places = np.argwhere(mask)
    near, far = (((places - np.argwhere(m).mean(0)) ** 2).sum(1) for m in (own, other))
    out = np.zeros_like(mask)
    out[tuple(places[near <= far].T)] = True
    return out


def rows_of(network: MeshNet, store: Store, subject: str) -> list[dict[str, Any]]:
    """A row for each structure that MeshNet has, on the prepared grid and in the scan's own voxels."""
    scan, spec = original_scan(store, subject), store.spec
    assert scan.label is not None
    found = network.segment(scan.image, scan.affine)
    grid, space_to_world = store.grid(subject), np.asarray(store.record(subject)["space_to_world"], np.float64)
    rows = []
    marked = [s for s in spec.structures if s in store.marked(subject) and without_side(s) in CLASSES]
    own = {s: mask_of(scan.label, spec.structures.index(s), spec.exclusive) for s in marked}
    for s in marked:
        classes = [network.classes.index(c) for c in CLASSES[without_side(s)]]
        mask = np.isin(found, classes)
        other = s.replace("_left", "_right") if s.endswith("_left") else s.replace("_right", "_left")
        if other != s and other in own:
            mask = on_side(mask, own[s], own[other])
        on_grid = mask_to_grid(mask, scan.affine, grid, space_to_world)
        for space, predicted, reference in (("data", on_grid, store.mask(subject, s)), ("scan", mask, own[s])):
            voxel = store.person_grid(subject).voxel if space == "data" else scan.affine[:3, :3]
            scored = score(predicted, reference, voxel)
            name = result_name(spec, s, space=space)  # type: ignore[arg-type]  # of the two that there are
            rows.append(
                {"test_set": name, "structure": s, "subject": subject, "person": store.persons[subject]}
                | {"iou": f"{scored.iou:.6f}", "dice": f"{scored.dice:.6f}"}
                | {"reference_ml": f"{scored.reference_ml:.4f}", "predicted_ml": f"{scored.predicted_ml:.4f}"}
            )
    return rows


def main() -> None:
    """Segment, score, and write the table and a summary."""
    if not (MESHNET.value and store_flags.STORES.value and TABLE.value):
        raise InputError(
            "Give --meshnet, --stores and --table: the model's folder, prepared data sets, a CSV to write."
        )
    started, network = environment(), MeshNet(Path(MESHNET.value))
    rows: list[dict[str, Any]] = []
    seconds: list[float] = []
    for folder in store_flags.STORES.value:
        store = open_any_store(Path(folder))
        if not isinstance(store, Store):
            raise InputError(f"{store.where} is of slices, and MeshNet segments volumes: name another.")
        for subject in store.subjects(None if EVERY.value else "test"):
            start = time.perf_counter()
            rows += rows_of(network, store, subject)
            seconds.append(time.perf_counter() - start)
            print(f"{store.spec.name} {subject}: {seconds[-1]:.0f} s", flush=True)
    if not rows:
        raise InputError("No structure of these data sets is one of MeshNet's classes: name other data sets.")
    with replacing(Path(TABLE.value), "w") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    cases = []
    for name in dict.fromkeys(r["test_set"] for r in rows):
        iou, dice = ([float(r[k]) for r in rows if r["test_set"] == name] for k in ("iou", "dice"))
        cases.append(
            {"test set": name, "scans": len(iou), "IoU": float(np.mean(iou)), "lowest IoU": min(iou)}
            | {"Dice": float(np.mean(dice))}
        )
        print(f"{name}: {len(iou)} scans, IoU {np.mean(iou):.3f} (lowest {min(iou):.2f}), Dice {np.mean(dice):.3f}")
    write_result("zero_labels", {"environment": started, "seconds": seconds, "cases": cases}, common_flags.OUT.value)
    print(f"written: {TABLE.value}")


if __name__ == "__main__":
    common_flags.run(main)
