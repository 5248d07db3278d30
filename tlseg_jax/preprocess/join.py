"""Prepared data sets that mark different structures, joined into one to train on together.

Each subject keeps its scan, its side of the split and its grid. Of a subject only the structures that its own data set
shows are marked: the others add nothing to the loss, the metrics or the counts (`train.label_loss`).
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tlseg_jax.datasets.lookup import check_spec
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.codes import anywhere, moved_codes
from tlseg_jax.preprocess.prepare_cohort import box_of_labels, without_mirroring
from tlseg_jax.preprocess.split_map import unite_scans
from tlseg_jax.preprocess.steps import crop
from tlseg_jax.preprocess.store.any_store import AnyStore, open_any_store
from tlseg_jax.preprocess.store.provenance import write_manifest
from tlseg_jax.preprocess.store.records import check_kept, images_of, json_key, writing
from tlseg_jax.preprocess.store.slice_store import SliceStore, write_slices
from tlseg_jax.preprocess.store.store import Store, write_subject
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.messages import log

Records = dict[str, dict[str, Any]]
Parts = dict[str, list[tuple[AnyStore, str]]]
"""Subject of a joined data set -> the data sets that hold it, and its name there."""

_OWN = {"name", "structures", "label_values", "split_group", "unmarked_value", "mirror_pairs", "patch_size"} | {
    # Of how scans were chosen, split and augmented, which each subject or the joined data set answers for itself.
    *("train_count", "test_count", "flip_left_right", "with_structure", "without_structure", "max_slices"),
    *("test_slices", "test_volumes", "other_values", "neighbours", "random_rotations"),
}
"""Fields of a spec in which data sets that are joined may differ."""


def join_stores(
    names: Sequence[str], name: str, store_root: Path, *, overwrite: bool = False, progress: bool = True
) -> AnyStore:
    """Join prepared data sets of `store_root` into one, `store_root/name/`, that shows the structures of all.

    The arrays are copied, so that the parts may be removed. A structure that two of them show is one by its name.

    Args:
      names: of the data sets, in whose order the structures stand.
      overwrite: replace a data set of that name that is of something else.

    Raises:
      InputError: there are fewer than two; they were prepared on different grids or by different steps; a person trains
        in one and is for test in another; or `name` is taken.
    """
    if len(set(names)) != len(names) or len(names) < 2:
        raise InputError(f"`join={','.join(names)}` must name two or more different prepared data sets.")
    if name in names:
        raise InputError(f"`name={name}` is one of the data sets that are joined: give the joined one another.")
    stores = [open_any_store(store_root / n) for n in names]
    for store in stores:
        if isinstance(store, Store):
            store.check_scans()
    _check_alike(stores)
    spec = joined_spec([s.spec for s in stores], name)
    records, parts = _records(stores, spec)
    united = unite_scans(records)
    if len(united) > 1:
        united = [f"{len(united)} scans are in several of the data sets (equal voxels): each counts as one person."]
    persons = _persons(records)
    folder = store_root / name
    with lock_folder(folder, "store"), writing(folder):
        (folder / "subjects").mkdir(exist_ok=True)
        check_kept(folder, {"joined": {n: json_key(s.manifest) for n, s in zip(names, stores, strict=True)}}, overwrite)
        for subject, of in tqdm(parts.items(), desc=f"join {name}", unit="scan", disable=not progress):
            records[subject] |= _copy(of, spec, folder / "subjects" / f"{subject}.zarr")
        spec, one_sided = without_mirroring(records, spec) if spec.kind == "volumes" else (spec, [])
        box, cut = box_of_labels(records, spec, folder) if spec.kind == "volumes" else (None, [])
        first = stores[0].manifest
        write_manifest(
            folder,
            kind=spec.kind,
            spec=spec.to_dict(),
            parameters=first["parameters"],
            source=" + ".join(str(s.manifest["source"]) for s in stores),
            layout="joined",
            joined=list(names),
            synthetic=any(s.manifest.get("synthetic") for s in stores),
            test_fraction=None,
            patch_box=box.to_dict() if box else None,
            persons=persons,
            subjects=records,
            exclusions=list(itertools.chain.from_iterable(s.manifest["exclusions"] for s in stores)),
            warnings=[w for s in stores for w in s.manifest["warnings"] if " patch does not hold " not in w]
            + united
            + one_sided
            + cut,
        )
    log.info(f"{name}: {len(records)} subject(s) of {', '.join(names)}, which mark {spec.shown}.")
    return open_any_store(folder)


def joined_spec(specs: Sequence[DatasetSpec], name: str) -> DatasetSpec:
    """What data sets show together, on the grid of the first.

    Label values are those of the first data set that shows a structure; where two of them meet, or one is not known,
    structures are numbered from 1. The patch is as long on each side as the longest of theirs.

    Raises:
      InputError: there are too many structures.
    """
    values = {s: v for spec in reversed(specs) for s, v in zip(spec.structures, spec.label_values, strict=True)}
    structures = tuple(dict.fromkeys(s for spec in specs for s in spec.structures))
    of_each = [values[s] for s in structures]
    flat = [v for of in of_each for v in of]
    known = all(of_each) and "all" not in flat
    if (specs[0].exclusive and not (known and len(set(flat)) == len(flat))) or not known:
        of_each = [(i + 1,) for i in range(len(structures))]
    grid: dict[str, Any] = {"flip_left_right": all(s.grid.flip_left_right for s in specs)}
    if specs[0].kind == "volumes":
        sides = zip(*(s.volumes.patch_size for s in specs), strict=True)
        grid |= {"patch_size": tuple(map(max, sides))}
        grid |= {"random_rotations": all(s.grid.random_rotations for s in specs)}
    else:
        grid |= {"neighbours": min(s.planes.neighbours for s in specs)}
    spec = specs[0].changed(
        name=name,
        structures=structures,
        label_values=tuple(of_each),
        split_group="",
        unmarked_value=next((s.unmarked_value for s in specs if s.unmarked_value is not None), None),
        mirror_pairs=tuple(dict.fromkeys(p for s in specs for p in s.mirror_pairs)),
        **grid,
    )
    if spec.kind == "slices" and spec.mirrored is None:
        spec = spec.changed(flip_left_right=False)
    return check_spec(spec, f"`name={name}`")


def _check_alike(stores: Sequence[AnyStore]) -> None:
    """Raise InputError where data sets are of different grids or steps."""

    def told(store: AnyStore) -> dict[str, Any]:
        of_spec = {k: v for k, v in store.spec.to_dict().items() if k not in _OWN}
        return {"exclusive": store.spec.exclusive} | of_spec | store.manifest["parameters"]

    first, *others = stores
    ours = told(first)
    for other in others:
        theirs = told(other)
        differ = [
            f"{k} is {ours.get(k)!r} and {theirs.get(k)!r}"
            for k in sorted(ours.keys() | theirs.keys())
            if ours.get(k) != theirs.get(k)
        ]
        if differ:
            raise InputError(
                f"{first.spec.name} and {other.spec.name} cannot be joined ({'; '.join(differ)}): prepare them alike."
            )


def _records(stores: Sequence[AnyStore], spec: DatasetSpec) -> tuple[Records, Parts]:
    """Each subject's record under its name in the joined data set, and which subjects of the data sets it is.

    A volume that several data sets hold on one grid is one subject, which marks what any of them does. A name that
    another data set has as well, of a subject or of a person, is else preceded by the data set's own; scans of one
    image are one person's all the same (`unite_scans`).
    """
    records: Records = {}
    parts: Parts = {}
    held: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for store in stores:
        before = "" if taken.isdisjoint({*store.subjects(), *store.persons.values()}) else f"{store.spec.name}-"
        taken |= {*store.subjects(), *store.persons.values()}
        for own, record in store.manifest["subjects"].items():
            keys = _scan_keys(record) if spec.kind == "volumes" else []
            there = next((held[k] for k in keys if k in held), None)
            if there is not None:
                parts[there].append((store, own))
                records[there] = _united(records[there], _moved(store, own, spec), store.where)
                continue
            subject = f"{before}{own}"
            parts[subject] = [(store, own)]
            person = f"{before}{record['person']}"
            records[subject] = _moved(store, own, spec) | {"person": person, "order": len(records)}
            held |= dict.fromkeys(keys, subject)
    return records, parts


def _scan_keys(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a volume is known by on its grid."""
    grid = json_key([record[k] for k in ("shape", "affine", "space_to_world")])
    return [(image, grid) for image in sorted(images_of(record))]


def _moved(store: AnyStore, own: str, spec: DatasetSpec) -> dict[str, Any]:
    """The record of a subject among the structures of the joined data set."""
    record = dict(store.record(own)) | {"marked": list(store.marked(own)), "label_values": []}
    for key in ("label_ml", "label_voxels"):  # of a single structure they were once one number
        if key in record and not isinstance(record[key], dict):
            record[key] = {store.spec.structures[0]: record[key]}
    if "bits" in record:
        places = _places(store, spec)
        record["bits"] = [sum((b >> i & 1) << p for i, p in enumerate(places)) for b in record["bits"]]
    return record


def _united(one: Mapping[str, Any], other: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record of one volume of two data sets. Raises InputError: it trains in one and is for test in the other."""
    _check_split(one, other["split"], where)
    both = {k: other[k] | one[k] for k in ("label_ml", "label_voxels", "label_right") if k in one and k in other}
    return dict(one) | both | {"marked": list(dict.fromkeys([*one["marked"], *other["marked"]]))}


def _places(store: AnyStore, spec: DatasetSpec) -> list[int]:
    """Where each structure of a data set stands in the joined one."""
    return [spec.structures.index(s) for s in store.spec.structures]


def _persons(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The manifest's map of persons. Raises InputError: one trains and is for test."""
    persons: dict[str, dict[str, Any]] = {}
    for subject, record in records.items():
        entry = persons.setdefault(record["person"], {"number": len(persons), "split": record["split"]})
        _check_split(record, entry["split"], subject)
    return persons


def _check_split(record: Mapping[str, Any], split: str, where: str) -> None:
    if record["split"] != split:
        raise InputError(
            f"{record['person']} trains in one data set and is for test in another ({where}): prepare data sets "
            "of the same scans with one `split_group` in their TOML files, or with a column 'split' in their lists."
        )


def _copy(parts: Sequence[tuple[AnyStore, str]], spec: DatasetSpec, path: Path) -> dict[str, Any]:
    """Write a subject's arrays, with its codes as they are in the joined data set; of two that meet the first counts.

    Returns:
      What is new in its record.
    """
    store, own = parts[0]
    if isinstance(store, SliceStore):
        image, label = store.arrays(own)
        write_slices(path, image, moved_codes(label, _places(store, spec), spec.exclusive))
        return {}
    codes = None
    for part, name in parts:
        moved = moved_codes(part.codes(name), _places(part, spec), spec.exclusive)
        if codes is None:
            codes = moved
        elif spec.exclusive:
            codes = np.where(anywhere(codes) | ~anywhere(moved), codes, moved)
        else:
            codes |= moved
    assert codes is not None
    write_subject(path, store.image(own), codes)
    if len(parts) == 1:
        return {}
    shown = anywhere(codes)
    return {"centre_of_mass": list(crop.centre_of_mass(shown)), "label_box": crop.tight_box(shown).to_dict()}
