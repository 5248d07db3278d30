"""What takes all subjects of a data set together: who trains and who tests, the patch box, the label's side."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.splits import assign_splits
from tlseg_jax.errors import InputError
from tlseg_jax.preprocess import crop
from tlseg_jax.preprocess.geometry import Box
from tlseg_jax.preprocess.prepare_subject import read_json
from tlseg_jax.preprocess.scan import ScanFiles
from tlseg_jax.preprocess.store import open_array
from tlseg_jax.remote.folder import Folder
from tlseg_jax.remote.manifests import bring_manifests

_ONE_SIDED = 0.95
"""Share of a label on one side in every subject from which the structure is one of a pair: a registration is off by a
millimetre or two, and a ventricle touches the middle."""


def split_subjects(
    records: dict[str, dict[str, Any]],
    scans: Sequence[ScanFiles],
    spec: DatasetSpec,
    store_root: Path,
    folder: Path,
    fraction: float,
    seed: int,
) -> list[str]:
    """Set each record's split; subjects that a data set of the same group has split keep their side."""
    persons = {s: str(r["person"]) for s, r in records.items()}
    given = {f.subject: f.split for f in scans if f.subject in records and f.split}
    warnings = []
    bring_manifests(store_root, folder.name)
    for path in sorted(store_root.glob("*/manifest.json")):
        manifest = read_json(path)
        if manifest is None or manifest.get("spec", {}).get("split_group") != spec.split_group:
            continue
        if path.parent == folder and (manifest.get("split_seed") != seed or manifest.get("test_fraction") != fraction):
            continue  # another split is asked for
        kept = [s for s in manifest["subjects"] if s in records and s not in given]
        if kept and path.parent != folder and manifest.get("test_fraction") != fraction:
            warnings.append(
                f"{len(kept)} subject(s) keep the side that they have in {path.parent}, which was split with a test "
                f"fraction of {manifest.get('test_fraction'):.3g}, not {fraction:.3g}: to split anew, remove both."
            )
        for subject, r in manifest["subjects"].items():
            if subject not in records:
                continue
            if given.setdefault(subject, r["split"]) != r["split"] and path.parent != folder:
                raise InputError(
                    f"Subject {subject} is to be in {given[subject]} and is in {r['split']} in the data set "
                    f"{path.parent}, which shares its split: put it on one side, or use another --store."
                )
    sides = assign_splits(persons, given, fraction, seed)
    for subject, side in sides.items():
        records[subject]["split"] = side
    if fraction < 1 and "train" not in sides.values():
        warnings.append("No subject is left for training: every one is in the test set.")
    return warnings


def training_box(
    records: Mapping[str, dict[str, Any]], spec: DatasetSpec, folder: Folder
) -> tuple[Box | None, list[str]]:
    """The box of the training labels, and a warning where it does not hold one of them."""
    train = [s for s in sorted(records) if records[s]["split"] == "train"]
    if not train:
        return None, []
    centres = [tuple(records[s]["centre_of_mass"]) for s in train]
    box = crop.patch_box(centres, spec.patch_size, spec.dimensions)
    if spec.random_patch:
        return box, []  # patches come from everywhere: nothing has to fit into one
    lost = {}
    for s in train:
        if not crop.holds(box, Box.from_dict(records[s]["label_box"])):
            label = open_array(folder / "subjects" / f"{s}.zarr", "label").read().result() > 0
            lost[s] = (crop.lost_voxels(label, box), int(label.sum()))
    return box, [crop.box_warning(lost, spec.patch_size)] if lost else []


def check_one_value(records: Mapping[str, dict[str, Any]], spec: DatasetSpec) -> None:
    """Check that label maps of which each holds one value, where none is named, all hold the same.

    Raises:
      InputError: they do not.
    """
    holder = {tuple(r["label_values"]): s for s, r in sorted(records.items()) if r.get("label_values")}
    if not spec.label_values and len(holder) > 1:
        named = " and ".join(f"{v[0]} in {s}" for v, s in sorted(holder.items())[:4])
        raise InputError(
            f"The label maps hold different values ({named}) and none is named as the {spec.structure}: name those "
            "that make it with --label_values=A,B, or take every value above 0 with --label_values=all."
        )


def without_mirroring(records: Mapping[str, dict[str, Any]], spec: DatasetSpec) -> tuple[DatasetSpec, list[str]]:
    """The spec, and a warning, with no mirroring where the structure lies on one side in every subject.

    A mirrored head looks like any other, and its mirrored label would be on the side that is to be left alone.
    """
    right = [r["label_right"] for r in records.values() if r.get("label_right") is not None]
    side = "right" if min(right, default=0) > _ONE_SIDED else "left" if max(right, default=1) < 1 - _ONE_SIDED else ""
    if not side or not (spec.flip_left_right or spec.random_rotations):
        return spec, []
    what = " and ".join(
        word for word, on in (("mirrored left to right", spec.flip_left_right),
                              ("turned and flipped at random", spec.random_rotations)) if on
    )  # fmt: skip
    return dataclasses.replace(spec, flip_left_right=False, random_rotations=False), [
        f"The {spec.structure} lies on the {side} in every subject, so training patches will not be {what}, as "
        f"{spec.name} has it: where both sides are meant, name the values of both with --label_values."
    ]
