"""Prepare a data set: scans and labels to the arrays that training reads; or join several, or only plan."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from tlseg_jax.actions import places
from tlseg_jax.actions.prepare_plan import plan
from tlseg_jax.datasets.fields import check_folder_name, label_from
from tlseg_jax.datasets.lookup import changed_spec, check_spec, get_spec
from tlseg_jax.datasets.spec import DatasetSpec, Kind
from tlseg_jax.preprocess.join import join_stores
from tlseg_jax.preprocess.layouts.layouts import Layout
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import Volumes, effective_spec
from tlseg_jax.preprocess.prepare_slices import Slices
from tlseg_jax.preprocess.store.any_store import AnyStore, open_any_store
from tlseg_jax.preprocess.store.shards import Shard, parse_shard
from tlseg_jax.preprocess.summary import summary
from tlseg_jax.preprocess.whole import Whole
from tlseg_jax.runtime.bounds import Bound, Positive
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log

SLICE_FIELDS = (
    "window",
    "pixels",
    "resize",
    "pixel_mm",
    "test_volumes",
    "max_slices",
    "with_structure",
    "without_structure",
    "neighbours",
)
"""Of a data set of slices (`PlaneGrid`), that can be changed."""

NOT_OF: Mapping[Kind, tuple[str, ...]] = {
    "volumes": SLICE_FIELDS,
    "slices": (
        "label_values",
        "spacing",
        "registration",
        "bias_correction",
        "normalise",
        "order",
        "split_seed",
        "mirror",
    ),
}
"""Kind of data set -> the settings that it does not have."""


@dataclasses.dataclass(frozen=True)
class Preparing:
    """What is prepared, where and how.

    Attributes:
      dataset: a data set of the papers (hdt_c, mal_c, hdt_v, hdt_wb, oas_c; of slices: lits, mri_artery), brain_maps,
        or a TOML file.
      source: folder with the scans and labels, or a CSV file that lists them.
      store: folder that holds the prepared data sets, one folder each.
      name: name of the prepared data set, where it is not the data set's own.
      structures: structures and the label values that make them, as in liver:1+2,tumour:2, or of a known table, as in
        freesurfer:caudate,putamen_left (also neuromorphometrics, totalsegmentator); other values are background.
      label_values: values of the label map, or names of a .seg.nrrd's segments, that make the structure, or all, for
        every one above 0; none: the data set's, and else the one value that each map holds.
      join: prepared data sets in store, two or more: make one of them, name, that shows the structures of all; of each
        scan those count that its own data set marks.
      from_labels: the source is whole-head label maps without scans (with FreeSurfer's or Neuromorphometrics' values,
        for MNI305): keep them with all they hold; pre-training draws its images from them.
      layout: how the source is laid out.
      desc: BIDS: of several segmentations (dseg) of a scan, that of this desc, as aseg; none: that without one.
      spacing: isotropic voxel size in mm, in place of the data set's.
      workers: processes.
      dry_run: only list what would be done and what is wrong with the source.
      registration: skip: the scans are in the data set's space already.
      bias_correction: divide out the bias field (N4).
      normalise: z-score over the whole volume (the paper) or within the mask.
      order: interpolation of the image: 1 linear, 3 cubic spline.
      test_fraction: share of the scans held out (of slices: the last volumes); none: the paper's.
      split_seed: which random split.
      mirror: mirror patches left to right in training, or not (--nomirror); not given: as the data set has it, but for
        a structure that lies on one side of every head.
      shard: as i/n, from 0/n to n-1/n: prepare every n-th scan only, beside the other shards; they merge, whichever
        ends last.
      overwrite: redo a data set that was prepared with other settings.
    """

    dataset: str | None = None
    source: str | None = None
    store: str | None = None
    name: str | None = None
    structures: str | None = None
    label_values: tuple[int | str, ...] = ()
    join: tuple[str, ...] = ()
    from_labels: bool = False
    layout: Layout = "auto"
    desc: str = ""
    spacing: float | None = None
    workers: Positive = 2
    dry_run: bool = False
    registration: Literal["auto", "skip"] = "auto"
    bias_correction: bool = True
    normalise: Literal["volume", "mask"] | None = None
    order: Annotated[int, Bound(0, 5)] = 3
    test_fraction: float | None = None
    split_seed: int = 0
    mirror: bool | None = None
    shard: str | None = None
    overwrite: bool = False


def prepare(
    asked: Preparing, planes: Mapping[str, Any], given: Collection[str], part: Shard | None = None
) -> AnyStore | None:
    """Prepare what is asked for, or tell what would be done.

    Args:
      planes: field of `SLICE_FIELDS` -> value in place of the data set's.
      given: names of the settings that were given, whatever their values.
      part: of the scans, where no `shard` is named.

    Returns:
      The store; None where only a plan was asked for, or other shards are still missing.

    Raises:
      InputError: a setting is missing or does not go with the others, or nothing can be prepared.
    """
    if asked.join:
        return _join(asked, given)
    spec = _spec(asked, planes, given)
    source = Path(_needed(asked.source, "source"))
    root = places.workdir(_needed(asked.store, "store"), spec.name if asked.dry_run else None)
    shard = part if asked.shard is None else parse_shard(asked.shard)
    how: dict[str, Any] = {"layout": asked.layout, "desc": asked.desc, "overwrite": asked.overwrite}
    if spec.kind == "slices":
        if asked.from_labels:
            raise InputError(f"`from_labels` is of volumes, and {spec.name} is a data set of slices: leave it out.")
        whole: Whole = Slices(spec, source, root, test_fraction=asked.test_fraction)
    else:
        settings = PrepareSettings(asked.registration, asked.bias_correction, asked.order, asked.from_labels)
        whole = Volumes(spec, source, root, settings, asked.test_fraction, asked.split_seed, asked.mirror)
    if asked.dry_run:
        plan(whole, shard, **how)
        return None
    if not whole.prepare(**how, shard=shard, workers=asked.workers):
        return None
    store = open_any_store(whole.folder)
    log.info(summary(store))
    return store


def _join(asked: Preparing, given: Collection[str]) -> AnyStore:
    own = ("dataset", "source", "structures", "layout", "desc", "test_fraction", "shard", "dry_run")
    of_kinds = (n for names in NOT_OF.values() for n in names)
    if refused := [f"`{n}`" for n in (*own, *of_kinds) if n in given]:
        raise InputError(f"`join` takes data sets as they were prepared: leave {' and '.join(refused)} out.")
    name = _needed(asked.name, "name")
    check_folder_name(name, f"`name={name}`")
    root = places.workdir(_needed(asked.store, "store"), name)
    store = join_stores(asked.join, name, root, overwrite=asked.overwrite)
    log.info(summary(store))
    return store


def _spec(asked: Preparing, planes: Mapping[str, Any], given: Collection[str]) -> DatasetSpec:
    """The data set that is asked for."""
    spec, said = get_spec(_needed(asked.dataset, "dataset")), f"`dataset={asked.dataset}`"
    if asked.name and (any(c in asked.name for c in "/\\ ") or asked.name.startswith(".")):
        raise InputError(f"`name={asked.name}` names a folder: use letters, digits, '-' and '_'.")
    if refused := [f"`{n}`" for n in NOT_OF[spec.kind] if n in given]:
        raise InputError(
            f"{', '.join(refused)} cannot be used with {said}, which is a data set of {spec.kind}: leave it out."
        )
    if "test_volumes" in planes and asked.test_fraction is not None:
        raise InputError("`test_volumes` and `test_fraction` both say what is for test: give one of them.")
    if asked.structures is not None and asked.label_values:
        raise InputError("`structures` and `label_values` both say which values count: give the first alone.")
    if asked.spacing is not None:
        spec = spec.at_spacing(asked.spacing)
    of_both = {"name": asked.name or spec.name} | ({"normalise": asked.normalise} if asked.normalise else {})
    spec = changed_spec(spec, {**planes, **of_both}, asked.structures, said)
    if spec.kind == "slices":
        return spec
    values = tuple(label_from(str(v)) for v in asked.label_values)
    if "" in values:
        text = ",".join(map(str, asked.label_values))
        raise InputError(f"`label_values={text}` must be numbers or names of segments, as in 36,37, or all.")
    return check_spec(effective_spec(spec, values), said)


def _needed(value: str | None, name: str) -> str:
    if not value:
        raise InputError(f"`{name}` is missing: give it, or see `help`.")
    return value
