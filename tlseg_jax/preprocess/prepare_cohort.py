"""What takes all subjects of a data set together: who trains and who tests, the patch box, the label's side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.splits import assign_splits
from tlseg_jax.datasets.structures import mirrored
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.codes import anywhere
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.split_map import NOBODY_LEFT, earlier_sides, unite_scans
from tlseg_jax.preprocess.steps import crop
from tlseg_jax.preprocess.store.store import open_array
from tlseg_jax.runtime.errors import InputError

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
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Set each record's person and split; who has a side in the group's map keeps it.

    Scans that could not be used count too, so that it moves nobody when they can be used.

    Returns:
      The manifest's map of persons, and warnings.
    """
    warnings = unite_scans(records)
    given = {f.subject: f.split for f in scans if f.subject in records and f.split}

    def same_rule(manifest: Mapping[str, Any]) -> bool:
        ours = manifest.get("spec", {}).get("name") == spec.name
        return manifest.get("test_fraction") == fraction and (not ours or manifest.get("split_seed") == seed)

    earlier = earlier_sides(records, given, spec.split_group, store_root, folder, same_rule)
    usable = {s: str(r["person"]) for s, r in records.items()}
    every = {f.subject: f.person for f in scans} | usable
    sides = assign_splits(every, given, fraction, seed, earlier.sides)
    if 0 < fraction < 1 and len({sides[s] for s in usable}) == 1:
        anew = assign_splits(usable, given, fraction, seed, earlier.others)
        if len(set(anew.values())) == 2:
            warnings += [NOBODY_LEFT] if earlier.own else []
            sides |= anew
    for subject, record in records.items():
        record["split"] = sides[subject]
    if fraction < 1 and "train" not in {sides[s] for s in usable}:
        warnings.append("No subject is left for training: every one is in the test set.")
    of_person = {person: sides[s] for s, person in every.items()} | {usable[s]: sides[s] for s in usable}
    return earlier.new_map(every.values(), of_person), warnings + earlier.warnings


def box_of_labels(
    records: Mapping[str, dict[str, Any]], spec: DatasetSpec, folder: Path
) -> tuple[Box | None, list[str]]:
    """The box of the training labels, and a warning where it does not hold one of them."""
    train = [s for s in sorted(records) if records[s]["split"] == "train"]
    if not train:
        return None, []
    box = crop.patch_box(_centres([records[s] for s in train]), spec.volumes.patch_size, spec.volumes.dimensions)
    if spec.volumes.random_patch:
        return box, []  # patches come from everywhere: nothing has to fit into one
    lost = {}
    for s in train:
        if not crop.encloses(box, Box.from_dict(records[s]["label_box"])):
            label = anywhere(open_array(folder / "subjects" / f"{s}.zarr", "label").read().result())
            lost[s] = (crop.lost_voxels(label, box), int(label.sum()))
    return box, [crop.box_warning(lost, spec.volumes.patch_size)] if lost else []


def _centres(records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Where labels lie: each one's centre of mass; of label maps that mark different structures the middle of all.

    That is of the mean boxes of those that mark the same: the centres alone would leave out whose structure is small.
    """
    boxes: dict[tuple[str, ...], list[Box]] = {}
    for r in records:
        boxes.setdefault(tuple(sorted(r.get("marked", ()))), []).append(Box.from_dict(r["label_box"]))
    if len(boxes) < 2:
        return [tuple(r["centre_of_mass"]) for r in records]
    low = np.min([np.mean([b.start for b in of], 0) for of in boxes.values()], 0)
    high = np.max([np.mean([b.stop for b in of], 0) for of in boxes.values()], 0)
    return [tuple((low + high - 1) / 2)]


def check_one_value(records: Mapping[str, dict[str, Any]], spec: DatasetSpec) -> None:
    """Check that label maps of which each holds one value, where none is named, all hold the same.

    Raises:
      InputError: they do not.
    """
    holder = {tuple(map(tuple, r["label_values"])): s for s, r in sorted(records.items()) if r.get("label_values")}
    if spec.label_values == ((),) and len(holder) > 1:
        named = " and ".join(f"{v[0][0]} in {s}" for v, s in sorted(holder.items())[:4])
        raise InputError(
            f"The label maps hold different values ({named}) and none is named as the {spec.shown}: name those "
            "that make it with `label_values=A,B`, or take every value above 0 with `label_values=all`."
        )


def without_mirroring(
    records: Mapping[str, dict[str, Any]], spec: DatasetSpec, mirror: bool | None = None
) -> tuple[DatasetSpec, list[str]]:
    """The spec, and a warning, with no mirroring where the structure lies on one side in every subject.

    A mirrored head looks like any other, and its mirrored label would be on the side that is to be left alone. A lesion
    that happens to be on one side in a few scans may lie on either: that is the user's to say.

    Args:
      mirror: whether to mirror, whatever the labels say; None: they decide.
    """
    if mirror is not None:
        return spec.changed(flip_left_right=mirror, random_rotations=mirror and spec.grid.random_rotations), []
    if not (spec.grid.flip_left_right or spec.grid.random_rotations):
        return spec, []
    said = _one_sided(records, spec)
    if not said:
        return spec, []
    what = " and ".join(
        word
        for word, on in (
            ("mirrored left to right", spec.grid.flip_left_right),
            ("turned and flipped at random", spec.grid.random_rotations),
        )
        if on
    )
    return spec.changed(flip_left_right=False, random_rotations=False), [
        f"{said}, so training patches will not be {what}, as {spec.name} has it: where both sides are meant, name the "
        "values of both with `label_values` or `structures`, and where it may lie on either (a lesion), give `mirror`."
    ]


def _one_sided(records: Mapping[str, dict[str, Any]], spec: DatasetSpec) -> str:
    """Which structure of one side has no partner of the other, in words; empty where all have."""
    if spec.mirrored is None:
        sided = [s for s in spec.structures if mirrored((s,), spec.mirror_pairs) is None]
        return f"One of {', '.join(sided)} has no partner of the other side among {spec.shown}"
    for i, structure in enumerate(spec.structures):
        if spec.mirrored[i] != i:
            continue
        found = (r.get("label_right", {}) for r in records.values())
        right = [r[structure] for r in found if structure in r]
        if right and (min(right) > _ONE_SIDED or max(right) < 1 - _ONE_SIDED):
            side = "right" if right[0] > 0.5 else "left"
            return f"The {structure} lies on the {side} in every subject"
    return ""
