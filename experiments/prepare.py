"""Prepare a data set: scans and labels to the arrays that training reads.

Usage: python -m experiments.prepare --dataset=hdt_c --source=DIR --store=DIR --label_values=36,37 --spacing=2
       python -m experiments.prepare --dataset=lits --source=DIR --store=DIR
       python -m experiments.prepare ... --shard=0/4    # one of four jobs; they merge, whichever ends last
       python -m experiments.prepare --join=hdt_c,hdt_v --name=both --store=DIR
"""

import dataclasses
import functools
import statistics
from pathlib import Path
from typing import Any, Literal

from absl import flags

from experiments import cli, cluster_flags, slice_flags
from tlseg_jax.datasets.fields import check_folder_name, label_from
from tlseg_jax.datasets.lookup import changed_spec, check_spec, get_spec
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.structures import LabelValues
from tlseg_jax.preprocess.dry_run import check_source, format_rows
from tlseg_jax.preprocess.join import join_stores
from tlseg_jax.preprocess.layouts.layouts import LAYOUTS, Found
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import (
    check_named,
    effective_spec,
    find_source,
    plan_scans,
    prepare_dataset,
    prepare_shard,
    settings_that_differ,
)
from tlseg_jax.preprocess.prepare_slices import (
    plan_slices,
    prepare_slices,
    prepare_slices_shard,
    slice_settings_that_differ,
)
from tlseg_jax.preprocess.slice_subject import natural_order
from tlseg_jax.preprocess.slice_summary import slice_summary
from tlseg_jax.preprocess.store.shards import Shard, parse_shard
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError

DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "A data set of the papers (hdt_c, mal_c, hdt_v, hdt_wb, oas_c; of slices: lits, mri_artery) or a TOML file.",
)
SOURCE = flags.DEFINE_string("source", None, "Folder with the scans and labels, or a CSV file that lists them.")
STORE = flags.DEFINE_string("store", None, "Folder that holds the prepared data sets, one folder each.")
NAME = flags.DEFINE_string("name", None, "Name of the prepared data set, where it is not the data set's own.")
LABEL_VALUES = flags.DEFINE_list(
    "label_values",
    [],
    "Values of the label map, or names of a .seg.nrrd's segments, that make the structure, or all, "
    "for every one above 0; none: the data set's, and else the one value that each map holds.",
)
JOIN = flags.DEFINE_list(
    "join",
    [],
    "Prepared data sets in --store, two or more: make one of them, --name, that shows the structures of all; of each "
    "scan those count that its own data set marks.",
)
FROM_LABELS = flags.DEFINE_bool(
    "from_labels",
    False,
    "The source is whole-head label maps without scans (with FreeSurfer's or Neuromorphometrics' values, for MNI305): "
    "keep them with all they hold; pre-training draws its images from them.",
)
LAYOUT = flags.DEFINE_enum("layout", "auto", LAYOUTS, "How the source is laid out.")
DESC = flags.DEFINE_string(
    "desc", "", "BIDS: of several segmentations (dseg) of a scan, that of this desc, as aseg; none: that without one."
)
SPACING = flags.DEFINE_float("spacing", None, "Isotropic voxel size in mm, in place of the data set's.")
WORKERS = flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only list what would be done and what is wrong with the source.")
REGISTRATION = flags.DEFINE_enum(
    "registration", "auto", ["auto", "skip"], "skip: the scans are in the data set's space already."
)
BIAS_CORRECTION = flags.DEFINE_bool("bias_correction", True, "Divide out the bias field (N4).")
NORMALISE = flags.DEFINE_enum(
    "normalise", None, ["volume", "mask"], "z-score over the whole volume (the paper) or within the mask."
)
ORDER = flags.DEFINE_integer(
    "order", 3, "Interpolation of the image: 1 linear, 3 cubic spline.", lower_bound=0, upper_bound=5
)
TEST_FRACTION = flags.DEFINE_float(
    "test_fraction", None, "Share of the scans held out (of slices: the last volumes); none: the paper's."
)
SPLIT_SEED = flags.DEFINE_integer("split_seed", 0, "Which random split.")
MIRROR = flags.DEFINE_bool(
    "mirror",
    None,
    "Mirror patches left to right in training, or not (--nomirror); not given: as the data set has it, "
    "but for a structure that lies on one side of every head.",
)
SHARD = flags.DEFINE_string(
    "shard",
    None,
    "i/n, from 0/n to n-1/n: prepare every n-th scan only, beside the other shards; they merge, whichever ends last.",
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Redo a data set that was prepared with other settings.")

for module in (slice_flags, cluster_flags):
    flags.adopt_module_key_flags(module)  # so that --help lists them


def _needed(flag: Any) -> str:
    if not flag.value:
        raise InputError(f"--{flag.name} is missing: give it, or see --help.")
    return str(flag.value)


def _spec() -> DatasetSpec:
    """The data set that the flags ask for."""
    spec, asked = get_spec(_needed(DATASET)), f"--dataset={DATASET.value}"
    if NAME.value and (any(c in NAME.value for c in "/\\ ") or NAME.value.startswith(".")):
        raise InputError(f"--name={NAME.value} names a folder: use letters, digits, '-' and '_'.")
    slice_flags.refuse(spec.kind)
    if "test_volumes" in slice_flags.CHANGES.given() and TEST_FRACTION.value is not None:
        raise InputError("--test_volumes and --test_fraction both say what is for test: give one of them.")
    if slice_flags.STRUCTURES.value is not None and LABEL_VALUES.value:
        raise InputError("--structures and --label_values both say which values count: give the first alone.")
    if SPACING.value is not None:
        spec = spec.at_spacing(SPACING.value)
    of_both = {"name": NAME.value or spec.name} | ({"normalise": NORMALISE.value} if NORMALISE.value else {})
    spec = changed_spec(spec, slice_flags.CHANGES.given() | of_both, slice_flags.STRUCTURES.value, asked)
    if spec.kind == "slices":
        return spec
    values: LabelValues = tuple(label_from(v) for v in LABEL_VALUES.value)
    if "" in values:
        given = ",".join(LABEL_VALUES.value)
        raise InputError(f"--label_values={given} must be numbers or names of segments, as in 36,37, or all.")
    return check_spec(effective_spec(spec, values), asked)


def main() -> None:
    """Parse the flags and prepare, or say what would be done."""
    if JOIN.value:
        _join()
        return
    spec = _spec()
    source, root = Path(_needed(SOURCE)), cli.workdir(_needed(STORE), spec.name if DRY_RUN.value else None)
    shard = _shard()
    if spec.kind == "slices":
        if FROM_LABELS.value:
            raise InputError(f"--from_labels is of volumes, and {spec.name} is a data set of slices: leave it out.")
        _slices(spec, source, root, shard)
    else:
        _volumes(spec, source, root, shard)


def _join() -> None:
    own = ("dataset", "source", "structures", "layout", "desc", "test_fraction", "shard", "dry_run")
    of_kinds = (n for names in slice_flags.NOT_OF.values() for n in names)
    if refused := [f"--{n}" for n in (*own, *of_kinds) if flags.FLAGS[n].present]:
        raise InputError(f"--join takes data sets as they were prepared: leave {' and '.join(refused)} out.")
    name = _needed(NAME)
    check_folder_name(name, f"--name={name}")
    store = join_stores(JOIN.value, name, cli.workdir(_needed(STORE), name), overwrite=OVERWRITE.value)
    cli.show(summary(store) if isinstance(store, Store) else slice_summary(store))


def _shard() -> Shard | None:
    """The part of the scans that the flags ask for; of several processes, that of this one."""
    if SHARD.value is not None:
        return parse_shard(SHARD.value)
    found = cluster_flags.find()
    if found is None:
        return None
    print(f"{found.count} processes, told {found.source}: this one prepares shard {found.index}/{found.count}.")
    return Shard(found.index, found.count)


def _slices(spec: DatasetSpec, source: Path, root: Path, shard: Shard | None) -> None:
    if DRY_RUN.value:
        _dry_run_slices(spec, source, root, shard)
        return
    prepare = prepare_slices if shard is None else functools.partial(prepare_slices_shard, shard)
    store = prepare(
        spec,
        source,
        root,
        layout=LAYOUT.value,
        desc=DESC.value,
        workers=WORKERS.value,
        test_fraction=TEST_FRACTION.value,
        overwrite=OVERWRITE.value,
    )
    if store is not None:
        cli.show(slice_summary(store))


def _volumes(spec: DatasetSpec, source: Path, root: Path, shard: Shard | None) -> None:
    registration: Literal["auto", "skip"] = "skip" if REGISTRATION.value == "skip" else "auto"
    settings = PrepareSettings(registration, BIAS_CORRECTION.value, ORDER.value, FROM_LABELS.value)
    if DRY_RUN.value:
        _dry_run(spec, source, root, settings, shard)
        return
    prepare = prepare_dataset if shard is None else functools.partial(prepare_shard, shard)
    store = prepare(
        spec,
        source,
        root,
        settings,
        layout=LAYOUT.value,
        desc=DESC.value,
        workers=WORKERS.value,
        test_fraction=TEST_FRACTION.value,
        split_seed=SPLIT_SEED.value,
        overwrite=OVERWRITE.value,
        mirror=MIRROR.value,
    )
    if store is not None:
        cli.show(summary(store))


def _looked(source: Path, shard: Shard | None, natural: bool, settings: PrepareSettings) -> Found:
    """What is in the source, or in this shard of it."""
    found = find_source(source, settings, LAYOUT.value, DESC.value)
    if shard is None:
        return found
    scans = sorted(found.scans, key=lambda f: natural_order(f.subject)) if natural else found.scans
    return dataclasses.replace(found, scans=shard.of(scans))


def _dry_run(spec: DatasetSpec, source: Path, root: Path, settings: PrepareSettings, shard: Shard | None) -> None:
    found, grid = _looked(source, shard, False, settings), spec.volumes
    cli.show(format_rows(check_source(found, tuple(v for of in spec.label_values for v in of))))
    check_named(found.scans, spec)
    plan = plan_scans(found.scans, spec, settings, root)
    placed = f"{'x'.join(map(str, grid.dimensions))} voxels ({grid.space})"
    if settings.from_labels:
        registered = grid.space == "MNI305" and settings.registration == "auto"
        print(f"Steps: {'affine by centres of structures, ' if registered else ''}label maps on {placed}.")
        differ = settings_that_differ(root / spec.name, spec, settings)
        _print_plan(root / spec.name, len(plan.reused), len(plan.jobs), differ)
        return
    steps = [
        "affine registration" if grid.space == "MNI305" and settings.registration == "auto" else "",
        "bias field" if settings.bias_correction else "",
        f"resampling to {'x'.join(map(str, grid.dimensions))} voxels ({grid.space})",
        "skull strip" if grid.skull_strip else "",
        f"z-score over the {grid.normalise}",
    ]
    print("Steps: " + ", ".join(s for s in steps if s) + ".")
    differ = settings_that_differ(root / spec.name, spec, settings)
    _print_plan(root / spec.name, len(plan.reused), len(plan.jobs), differ)


def _dry_run_slices(spec: DatasetSpec, source: Path, root: Path, shard: Shard | None) -> None:
    found, planes = _looked(source, shard, True, PrepareSettings()), spec.planes
    values = () if planes.other_values == "background" else tuple(v for vs in spec.label_values for v in vs)
    rows = check_source(found, values, single_slice=True)
    cli.show(format_rows(sorted(rows, key=lambda r: natural_order(r.subject))))
    some = f"{planes.with_structure} slices with {' or '.join(spec.structures)}"
    print(
        "Steps: "
        + (f"{some} and the {planes.without_structure} nearest without" if planes.with_structure else "every slice")
        + (f" of a volume, until there are {planes.max_slices}" if planes.max_slices else " of each volume")
        + f", {planes.resize} to {planes.pixels[0]}x{planes.pixels[1]} pixels, "
        + (f"window {planes.window[0]:g} to {planes.window[1]:g}." if planes.window else "z-score by volume.")
    )
    plan = plan_slices(found.scans, spec, root / spec.name)
    differ = slice_settings_that_differ(root / spec.name, spec)
    _print_plan(root / spec.name, len(plan.reused), len(plan.jobs), differ, "at most " if planes.max_slices else "")


def _print_plan(folder: Path, reused: int, jobs: int, differ: str, most: str = "") -> None:
    print(f"{folder}: {reused} subject(s) are prepared already and would be reused, {most}{jobs} to prepare.")
    if differ and not OVERWRITE.value:
        print(f"It was prepared with other settings and would be refused without --overwrite: {differ}.")
    print("Nothing was written.")


def summary(store: Store) -> str:
    """What was prepared, in a few lines."""
    m = store.manifest
    train, test = len(store.subjects("train")), len(store.subjects("test"))
    lines = [
        f"{store.spec.name}: {train} for training, {test} for test",
        "grid: " + "x".join(map(str, store.spec.volumes.dimensions)) + f" voxels, {store.spec.volumes.space} space",
    ]
    if store.patch_box:
        a, b = store.patch_box.start, store.patch_box.stop
        spans = ", ".join(f"{n} {i} to {j - 1}" for n, i, j in zip("xyz", a, b, strict=True))
        lines.append("patch: " + "x".join(map(str, store.patch_box.size)) + f" voxels ({spans})")
    times: dict[str, list[float]] = {}
    for r in m["subjects"].values():
        for k, v in r["seconds"].items():
            times.setdefault(k, []).append(v)
    lines.append("seconds a scan: " + ", ".join(f"{k} {statistics.mean(v):.1f}" for k, v in times.items()))
    lines += [f"warning: {w}" for w in m["warnings"]]
    lines += [f"excluded: {e['subject']}: {e['reason']}" for e in m["exclusions"]]
    lines.append(f"store: {store.where}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
