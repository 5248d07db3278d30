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
from tlseg_jax.preprocess.slice_subject import natural_order, prepare_slices_of
from tlseg_jax.preprocess.split_map import earlier_sides, unite_scans
from tlseg_jax.preprocess.store.provenance import check_any, is_synthetic, write_manifest
from tlseg_jax.preprocess.store.records import Records, doubts_of, keep_exclusion, writing
from tlseg_jax.preprocess.store.shards import Shard
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.whole import Whole
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.jobs import run_jobs
from tlseg_jax.runtime.messages import log

_NOT_SHAPING = ("name", "max_slices", "test_slices", "test_volumes", "split_group", "flip_left_right", "mirror_pairs")
"""Fields of a spec that no volume's arrays depend on."""


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
    whole = Slices(spec, source, store_root, test_fraction)
    found = whole.find(layout, desc)
    with lock_folder(whole.folder, "store"), writing(whole.folder):
        whole.begin(found, overwrite)
        records, failed, reused = whole.in_waves(found.scans, workers, progress)
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
    """Prepare one shard of the volumes, and merge if no other volume is out (see `Whole.prepare_shard`).

    No shard knows how many slices the others find, so each prepares all of its volumes, and whoever merges takes the
    first `max_slices` slices of them all. For the arguments see `prepare_slices`.

    Returns:
      The merged store; None where volumes are still out or other shards at work.

    Raises:
      InputError: as `prepare_slices`; or this shard is at work already, or shards of another number.
    """
    whole = Slices(spec, source, store_root, test_fraction)
    merged = whole.prepare_shard(shard, whole.find(layout, desc), workers, overwrite, progress)
    return SliceStore(whole.folder) if merged else None


@dataclasses.dataclass(frozen=True)
class Slices(Whole):
    """A data set of slices."""

    test_fraction: float | None = None

    work = staticmethod(prepare_slices_of)
    masks = False

    def __post_init__(self) -> None:
        if self.test_fraction is not None and not 0 <= self.test_fraction <= 1:
            raise InputError(f"A test fraction of {self.test_fraction} is not usable: give one between 0 and 1.")

    @property
    def shaping(self) -> dict[str, Any]:
        return {k: v for k, v in self.spec.to_dict().items() if k not in _NOT_SHAPING}

    def find(self, layout: str, desc: str) -> Found:
        """The volumes of the source, in natural order. Raises InputError: none can be used."""
        found = find_scans(self.source, layout, desc=desc)
        check_any(len(found.scans), found.excluded, self.source)
        return dataclasses.replace(found, scans=tuple(sorted(found.scans, key=lambda f: natural_order(f.subject))))

    def same_rule(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a data set was split by the rule that is asked for now."""
        there, here = manifest.get("spec", {}), self.spec.to_dict()
        rule = ("max_slices", "test_slices", "test_volumes")
        return manifest.get("test_fraction") == self.test_fraction and all(there.get(k) == here[k] for k in rule)

    def in_waves(
        self, scans: Sequence[ScanFiles], workers: int, progress: bool
    ) -> tuple[Records, dict[str, str], set[str]]:
        """Records, failures and the names of those reused, of as many volumes as `max_slices` needs."""
        records: Records = {}
        failed: dict[str, str] = {}
        reused: set[str] = set()
        most, at = self.spec.planes.max_slices, 0
        while at < len(scans):
            count = len(scans)
            if most:
                have = sum(len(r["samples"]) for r in records.values())
                if have >= most:
                    break
                count = volumes_for(most - have, have, len(records), self.spec, workers)
            plan = self.plan(scans[at : at + count])
            done, no = run_jobs(plan.jobs, self.work, workers, progress, self.spec.name, keep_exclusion)
            records |= {**plan.reused, **done}
            failed |= no
            reused |= set(plan.reused)
            at += count
        return records, failed, reused

    def finish(self, found: Found, records: Records, failed: Mapping[str, str]) -> str:
        order, unused, excluded = self.write_manifest(found, records, failed)
        most = self.spec.planes.max_slices
        why = f" as {most} slices were asked for" if unused and most else ""
        return f"{len(order)} prepared, {excluded} excluded, {len(unused)} not needed{why}"

    def write_manifest(
        self, found: Found, records: Records, failed: Mapping[str, str]
    ) -> tuple[list[str], list[str], int]:
        """What takes all volumes together: the cap, the split, and the manifest.

        Returns:
          The volumes that are used, in order; those that are not needed; how many are excluded.
        """
        spec, folder = self.spec, self.folder
        order, unused, excluded = cap(found.scans, records, failed, spec.planes.max_slices)
        exclusions = found.excluded
        exclusions += [{"subject": s, "reason": excluded[s]} for s in sorted(excluded, key=natural_order)]
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
