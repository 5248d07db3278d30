"""Volumes to a prepared data set of slices on disk: in parallel, resumable, with what failed named."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.layouts.layouts import Found, find_scans
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.slice_cap import cap, volumes_for
from tlseg_jax.preprocess.slice_split import split_volumes
from tlseg_jax.preprocess.slice_subject import SliceJob, natural_order, origin_of, prepare_slices_of
from tlseg_jax.preprocess.split_map import earlier_sides, unite_scans
from tlseg_jax.preprocess.store.kept import check_kept, settings_that_differ_from
from tlseg_jax.preprocess.store.provenance import check_any, checksums_of, is_synthetic, write_manifest
from tlseg_jax.preprocess.store.records import (
    clear_leftovers,
    doubts_of,
    json_key,
    keep_exclusion,
    kept_record,
    source_of,
    stamps_of,
    writing,
)
from tlseg_jax.preprocess.store.shards import Shard, at_work, collect, left_out, merging
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.jobs import run_jobs
from tlseg_jax.runtime.messages import log

_NOT_SHAPING = ("name", "max_slices", "test_slices", "test_volumes", "split_group", "flip_left_right", "mirror_pairs")
"""Fields of a spec that no volume's arrays depend on."""


@dataclasses.dataclass(frozen=True)
class SlicePlan:
    """What is there of some volumes, and what is to do.

    Attributes:
      reused: volumes whose slices are there and match their source.
      jobs: volumes to prepare.
    """

    reused: Mapping[str, dict[str, Any]]
    jobs: tuple[SliceJob, ...]


def prepare_slices(
    spec: DatasetSpec,
    source: Path,
    store_root: Path,
    *,
    layout: str = "auto",
    desc: str = "",
    workers: int = 2,
    test_fraction: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SliceStore:
    """Prepare the volumes of `source` into `store_root/spec.name/`.

    Volumes are taken in natural order, and only as many as `max_slices` needs; of the last one only the first
    slices count. A second call does only what changed, and a call that was stopped goes on from the volumes that are
    done.

    Args:
      source: folder or CSV file of volumes and label maps.
      layout: one of `layouts.LAYOUTS`.
      desc: of BIDS, which of several segmentations.
      workers: processes; 1 stays in this one.
      test_fraction: share of the volumes, the last ones, for test; None follows the spec.
      overwrite: redo a store that was made with other settings.

    Raises:
      InputError: the store was made with other settings or is in use, the source has no usable volume, or none is
        left for training.
    """
    whole = _Whole(spec, source, store_root, test_fraction)
    found = _find(source, layout, desc)
    check_any(len(found.scans), found.excluded, source)
    with lock_folder(whole.folder, "store"), writing(whole.folder):
        whole.begin(found, overwrite)
        records, failed, reused = _in_waves(found.scans, spec, whole.folder, workers, progress)
        order, unused, excluded = whole.write_manifest(found, records, failed)
    if reused := reused & set(order):
        log.info(f"{spec.name}: {len(reused)} volume(s) were prepared already and are reused.")
    log.info(
        f"{spec.name}: {len(reused)} reused, {len(order) - len(reused)} prepared, {excluded} excluded, "
        f"{len(unused)} not needed."
    )
    return SliceStore(whole.folder)


def prepare_slices_shard(
    shard: Shard,
    spec: DatasetSpec,
    source: Path,
    store_root: Path,
    *,
    layout: str = "auto",
    desc: str = "",
    workers: int = 2,
    test_fraction: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SliceStore | None:
    """Prepare one shard of the volumes, and merge if no other volume is out (see `prepare.prepare_shard`).

    No shard knows how many slices the others find, so each prepares all of its volumes, and whoever merges takes the
    first `max_slices` slices of them all.

    Args:
      shard: which part of the volumes; the others as for `prepare_slices`.

    Returns:
      The merged store; None where volumes are still out or other shards at work.

    Raises:
      InputError: as `prepare_slices`; or this shard is at work already, or shards of another number.
    """
    whole = _Whole(spec, source, store_root, test_fraction)
    folder = whole.folder
    found = _find(source, layout, desc)
    check_any(len(found.scans), found.excluded, source)
    ours = dataclasses.replace(found, scans=shard.of(found.scans))
    with writing(folder):
        with at_work(folder, shard, lambda: whole.begin(ours, overwrite)):
            plan = plan_slices(ours.scans, spec, folder)
            title = f"{spec.name} {shard}"
            done, failed = run_jobs(plan.jobs, prepare_slices_of, workers, progress, title, keep_exclusion)
            log.info(
                f"{spec.name}, shard {shard}: {len(plan.reused)} reused, {len(done)} prepared, {len(failed)} excluded."
            )
        with merging(folder) as alone:
            records, failed, out = collect(found.scans, folder, whole.fingerprint, checksums_of, origin_of)
            if out or not alone:
                log.info(left_out(spec.name, len(out), len(found.scans)))
                return None
            order, unused, excluded = whole.write_manifest(found, records, failed)
    why = f" as {spec.planes.max_slices} slices were asked for" if unused and spec.planes.max_slices else ""
    log.info(f"{spec.name}: merged, {len(order)} prepared, {excluded} excluded, {len(unused)} not needed{why}.")
    return SliceStore(folder)


@dataclasses.dataclass(frozen=True)
class _Whole:
    """A data set as it is asked for: what every shard of it knows."""

    spec: DatasetSpec
    source: Path
    store_root: Path
    test_fraction: float | None

    def __post_init__(self) -> None:
        if self.test_fraction is not None and not 0 <= self.test_fraction <= 1:
            raise InputError(f"A test fraction of {self.test_fraction} is not usable: give one between 0 and 1.")

    @property
    def folder(self) -> Path:
        return self.store_root / self.spec.name

    def fingerprint(self, checksums: Mapping[str, str]) -> str:
        return _fingerprint(self.spec, checksums)

    def same_rule(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a data set was split by the rule that is asked for now."""
        there, here = manifest.get("spec", {}), self.spec.to_dict()
        rule = ("max_slices", "test_slices", "test_volumes")
        return manifest.get("test_fraction") == self.test_fraction and all(there.get(k) == here[k] for k in rule)

    def begin(self, found: Found, overwrite: bool) -> None:
        """Make the folder ready for these volumes, on which nobody else is at work."""
        (self.folder / "subjects").mkdir(exist_ok=True)
        check_kept(self.folder, _shaping(self.spec), overwrite)
        clear_leftovers(self.folder, [f.subject for f in found.scans])

    def write_manifest(
        self, found: Found, records: dict[str, dict[str, Any]], failed: dict[str, str]
    ) -> tuple[list[str], list[str], int]:
        """What takes all volumes together: the cap, the split, and the manifest.

        Returns:
          The volumes that are used, in order; those that are not needed; how many are excluded.
        """
        spec, folder = self.spec, self.folder
        order, unused, failed = cap(found.scans, records, failed, spec.planes.max_slices)
        exclusions = found.excluded
        exclusions += [{"subject": s, "reason": failed[s]} for s in sorted(failed, key=natural_order)]
        check_any(len(order), exclusions, self.source)
        records = {s: records[s] | {"order": i} for i, s in enumerate(order)}
        warnings = doubts_of({s: records[s] for s in order})
        warnings += [w for s in order for w in records[s]["details"]["warnings"]]
        warnings += unite_scans(records)
        given = {f.subject: f.split for f in found.scans if f.subject in records and f.split}
        earlier = earlier_sides(records, given, spec.split_group, self.store_root, folder, self.same_rule)
        persons = {s: str(records[s]["person"]) for s in order}
        sides, of_split = split_volumes(
            order,
            {s: len(records[s]["samples"]) for s in order},
            persons,
            given,
            spec,
            self.test_fraction,
            earlier.own,
            earlier.others,
        )
        for s, side in sides.items():
            records[s]["split"] = side
        warnings += of_split + earlier.warnings
        write_manifest(
            folder,
            kind=SliceStore.kind,
            spec=spec.to_dict(),
            parameters={},
            source=str(self.source.resolve()),
            layout=found.layout,
            synthetic=is_synthetic(self.source),
            test_fraction=self.test_fraction,
            persons=earlier.new_map([], {persons[s]: sides[s] for s in order}),
            subjects={s: records[s] for s in order},
            unused=unused,
            exclusions=exclusions,
            warnings=warnings,
        )
        return order, unused, len(exclusions)


def _find(source: Path, layout: str, desc: str) -> Found:
    """The volumes of the source, in natural order."""
    found = find_scans(source, layout, desc=desc)
    return dataclasses.replace(found, scans=tuple(sorted(found.scans, key=lambda f: natural_order(f.subject))))


def plan_slices(scans: Sequence[ScanFiles], spec: DatasetSpec, folder: Path) -> SlicePlan:
    """Which volumes are done and which are to do. Takes the files' checksums and writes nothing."""
    reused, jobs = {}, []
    for files in scans:
        source = source_of(stamps_of(files), checksums_of(files))
        fingerprint = _fingerprint(spec, {k: v["sha256"] for k, v in source.items()})
        record = kept_record(folder, files.subject, fingerprint)
        if record is not None:
            # Where the files lie and whose they are may have changed with no change to the voxels.
            reused[files.subject] = {k: v for k, v in record.items() if k != "marked"} | origin_of(files)
        else:
            jobs.append(SliceJob(files, spec, source, fingerprint, folder))
    return SlicePlan(reused, tuple(jobs))


def slice_settings_that_differ(folder: Path, spec: DatasetSpec) -> str:
    """In which settings what is prepared in `folder` differs from `spec`, in words; empty if in none."""
    return settings_that_differ_from(folder, _shaping(spec))


def _fingerprint(spec: DatasetSpec, checksums: Mapping[str, str]) -> str:
    return json_key({"files": dict(checksums), "settings": _shaping(spec)})


def _shaping(spec: DatasetSpec) -> dict[str, Any]:
    """All that a volume's arrays depend on besides the source's files."""
    return {k: v for k, v in spec.to_dict().items() if k not in _NOT_SHAPING}


def _in_waves(
    scans: Sequence[ScanFiles], spec: DatasetSpec, folder: Path, workers: int, progress: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, str], set[str]]:
    """Records, failures and the names of those reused, of as many volumes as `max_slices` needs."""
    records: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    reused: set[str] = set()
    at = 0
    while at < len(scans):
        count = len(scans)
        if spec.planes.max_slices:
            have = sum(len(r["samples"]) for r in records.values())
            if have >= spec.planes.max_slices:
                break
            count = volumes_for(spec.planes.max_slices - have, have, len(records), spec, workers)
        plan = plan_slices(scans[at : at + count], spec, folder)
        done, no = run_jobs(plan.jobs, prepare_slices_of, workers, progress, spec.name, keep_exclusion)
        records |= {**plan.reused, **done}
        failed |= no
        reused |= set(plan.reused)
        at += count
    return records, failed, reused
