"""What preparing a data set would do, told from the files' headers alone; nothing is written."""

import dataclasses
from pathlib import Path

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.dry_run import check_source, format_rows
from tlseg_jax.preprocess.layouts.layouts import Found, Layout
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import Volumes, check_named, find_source
from tlseg_jax.preprocess.prepare_slices import Slices
from tlseg_jax.preprocess.slice_subject import natural_order
from tlseg_jax.preprocess.store.shards import Shard
from tlseg_jax.runtime.messages import log


def plan_volumes(
    spec: DatasetSpec,
    source: Path,
    root: Path,
    settings: PrepareSettings,
    shard: Shard | None,
    *,
    layout: Layout,
    desc: str,
    overwrite: bool,
) -> None:
    """Tell of every scan of volumes, and what is done to it.

    Raises:
      InputError: the source cannot be used, or lacks what it was asked for.
    """
    found, grid = find_source(source, settings, layout, desc), spec.volumes
    if shard is not None:
        found = dataclasses.replace(found, scans=shard.of(found.scans))
    log.info(format_rows(check_source(found, tuple(v for of in spec.label_values for v in of))))
    check_named(found.scans, spec)
    whole = Volumes(spec, source, root, settings)
    reused, to_do = whole.plan(found.scans)
    placed = f"{'x'.join(map(str, grid.dimensions))} voxels ({grid.space})"
    registered = grid.space == "MNI305" and settings.registration == "auto"
    steps = [
        "affine registration" if registered else "",
        "bias field" if settings.bias_correction else "",
        f"resampling to {placed}",
        "skull strip" if grid.skull_strip else "",
        f"z-score over the {grid.normalise}",
    ]
    if settings.from_labels:
        steps = ["affine by centres of structures" if registered else "", f"label maps on {placed}"]
    log.info("Steps: " + ", ".join(s for s in steps if s) + ".")
    _tell(whole.folder, len(reused), str(len(to_do)), "" if overwrite else whole.differs())


def plan_slice_set(
    spec: DatasetSpec, source: Path, root: Path, shard: Shard | None, *, layout: Layout, desc: str, overwrite: bool
) -> None:
    """As `plan_volumes`, for a data set of slices."""
    found: Found = find_source(source, PrepareSettings(), layout, desc)
    if shard is not None:
        found = dataclasses.replace(found, scans=shard.of(sorted(found.scans, key=lambda f: natural_order(f.subject))))
    planes = spec.planes
    values = () if planes.other_values == "background" else tuple(v for vs in spec.label_values for v in vs)
    rows = check_source(found, values, single_slice=True)
    log.info(format_rows(sorted(rows, key=lambda r: natural_order(r.subject))))
    some = f"{planes.with_structure} slices with {' or '.join(spec.structures)}"
    log.info(
        "Steps: "
        + (f"{some} and the {planes.without_structure} nearest without" if planes.with_structure else "every slice")
        + (f" of a volume, until there are {planes.max_slices}" if planes.max_slices else " of each volume")
        + f", {planes.resize} to {planes.pixels[0]}x{planes.pixels[1]} pixels, "
        + (f"window {planes.window[0]:g} to {planes.window[1]:g}." if planes.window else "z-score by volume.")
    )
    whole = Slices(spec, source, root)
    reused, to_do = whole.plan(found.scans)
    jobs = f"at most {len(to_do)}" if planes.max_slices else str(len(to_do))
    _tell(whole.folder, len(reused), jobs, "" if overwrite else whole.differs())


def _tell(folder: Path, reused: int, jobs: str, differ: str) -> None:
    log.info(f"{folder}: {reused} subject(s) are prepared already and would be reused, {jobs} to prepare.")
    if differ:
        log.info(f"It was prepared with other settings and would be refused without `overwrite`: {differ}.")
    log.info("Nothing was written.")
