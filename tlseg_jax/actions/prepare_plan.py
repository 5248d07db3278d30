"""What preparing a data set would do, told from the files' headers alone; nothing is written."""

import dataclasses

from tlseg_jax.datasets.spec import PlaneGrid, VolumeGrid
from tlseg_jax.preprocess.dry_run import check_source, format_rows
from tlseg_jax.preprocess.layouts.layouts import Layout
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import check_marked, check_named, find_source
from tlseg_jax.preprocess.slice_subject import natural_order
from tlseg_jax.preprocess.store.shards import Shard
from tlseg_jax.preprocess.whole import Whole
from tlseg_jax.runtime.messages import log


def plan(whole: Whole, shard: Shard | None, *, layout: Layout, desc: str, overwrite: bool) -> None:
    """Tell of every scan of a data set, and what is done to it.

    Raises:
      InputError: the source cannot be used, or lacks what it was asked for.
    """
    spec, settings = whole.spec, whole.settings or PrepareSettings()
    found, of_slices = find_source(whole.source, settings, layout, desc), isinstance(spec.grid, PlaneGrid)
    if of_slices:
        found = dataclasses.replace(found, scans=tuple(sorted(found.scans, key=lambda f: natural_order(f.subject))))
    if shard is not None:
        found = dataclasses.replace(found, scans=shard.of(found.scans))
    any_other = of_slices and spec.planes.other_values == "background"
    values = () if any_other else tuple(v for of in spec.label_values for v in of)
    rows = check_source(found, values, single_slice=of_slices)
    log.info(format_rows(sorted(rows, key=lambda r: natural_order(r.subject)) if of_slices else rows))
    (check_marked if of_slices else check_named)(found.scans, spec)
    steps = _of_slices(spec.planes, spec.structures) if of_slices else _of_volumes(spec.volumes, settings)
    log.info("Steps: " + ", ".join(s for s in steps if s) + ".")
    reused, to_do = whole.plan(found.scans)
    most = "at most " if of_slices and spec.planes.max_slices else ""
    log.info(
        f"{whole.folder}: {len(reused)} subject(s) are prepared already and would be reused, {most}{len(to_do)} to "
        "prepare."
    )
    if not overwrite and (differ := whole.differs()):
        log.info(f"It was prepared with other settings and would be refused without `overwrite`: {differ}.")
    log.info("Nothing was written.")


def _of_volumes(grid: VolumeGrid, settings: PrepareSettings) -> list[str]:
    placed = f"{'x'.join(map(str, grid.dimensions))} voxels ({grid.space})"
    registered = grid.space == "MNI305" and settings.registration == "auto"
    if settings.from_labels:
        return ["affine by centres of structures" if registered else "", f"label maps on {placed}"]
    return [
        "affine registration" if registered else "",
        "bias field" if settings.bias_correction else "",
        f"resampling to {placed}",
        "skull strip" if grid.skull_strip else "",
        f"z-score over the {grid.normalise}",
    ]


def _of_slices(planes: PlaneGrid, structures: tuple[str, ...]) -> list[str]:
    some = f"{planes.with_structure} slices with {' or '.join(structures)}"
    return [
        (f"{some} and the {planes.without_structure} nearest without" if planes.with_structure else "every slice")
        + (f" of a volume, until there are {planes.max_slices}" if planes.max_slices else " of each volume"),
        f"{planes.resize} to {planes.pixels[0]}x{planes.pixels[1]} pixels",
        f"window {planes.window[0]:g} to {planes.window[1]:g}" if planes.window else "z-score by volume",
    ]
