"""Volumes to a prepared data set of slices on disk: in parallel, resumable, with what failed named."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.errors import InputError
from tlseg_jax.files import lock_folder, write_json
from tlseg_jax.preprocess.jobs import run_jobs
from tlseg_jax.preprocess.kept import check_kept, settings_that_differ_from
from tlseg_jax.preprocess.layouts import find_scans
from tlseg_jax.preprocess.prepare_subject import json_key, read_json
from tlseg_jax.preprocess.provenance import check_any, checksums_of, is_synthetic, library_versions, now
from tlseg_jax.preprocess.scan import ScanFiles
from tlseg_jax.preprocess.slice_split import split_volumes
from tlseg_jax.preprocess.slice_store import SliceStore
from tlseg_jax.preprocess.slice_subject import SliceJob, first_samples, natural_order, origin_of, prepare_slices_of
from tlseg_jax.preprocess.store import FORMAT

_NOT_SHAPING = ("name", "max_slices", "test_slices", "test_volumes", "split_group")
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
    spec: SliceSpec,
    source: Path,
    store_root: Path,
    *,
    layout: str = "auto",
    workers: int = 2,
    test_fraction: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> SliceStore:
    """Prepare the volumes of `source` into `store_root/spec.name/`.

    Volumes are taken in natural order, and only as many as `spec.max_slices` needs; of the last one only the first
    slices count. A second call does only what changed, and a call that was stopped goes on from the volumes that are
    done.

    Args:
      spec: the data set; its name is the folder's.
      source: folder or CSV file of volumes and label maps.
      store_root: where prepared data sets are.
      layout: one of `layouts.LAYOUTS`.
      workers: processes; 1 stays in this one.
      test_fraction: share of the volumes, the last ones, for test; None follows the spec.
      overwrite: redo a store that was made with other settings.
      progress: whether to show a bar.
      say: prints a line.

    Raises:
      InputError: the store was made with other settings or is in use, the source has no usable volume, or none is
        left for training.
    """
    if test_fraction is not None and not 0 <= test_fraction <= 1:
        raise InputError(f"A test fraction of {test_fraction} is not usable: give one between 0 and 1.")
    found = find_scans(source, layout)
    exclusions = [{"subject": e.subject, "reason": e.reason} for e in found.exclusions]
    check_any(len(found.scans), exclusions, source)
    scans = sorted(found.scans, key=lambda f: natural_order(f.subject))

    folder = store_root / spec.name
    with lock_folder(folder, "store"):
        (folder / "subjects").mkdir(exist_ok=True)
        check_kept(folder, _shaping(spec), overwrite)
        records, failed, reused = _in_waves(scans, spec, folder, workers, progress)
        exclusions += [{"subject": s, "reason": failed[s]} for s in sorted(failed, key=natural_order)]
        check_any(len(records), exclusions, source)
        order, unused = _cap(scans, records, failed, spec.max_slices)
        records = {s: records[s] | {"order": i} for i, s in enumerate(order)}
        if reused := reused & set(order):
            say(f"{spec.name}: {len(reused)} volume(s) were prepared already and are reused.")
        warnings = [w for s in order for w in records[s]["details"]["warnings"]]
        sides, of_split = split_volumes(
            order, {s: len(records[s]["samples"]) for s in order}, {s: records[s]["person"] for s in order},
            {f.subject: f.split for f in scans if f.subject in records and f.split}, spec, test_fraction,
        )  # fmt: skip
        for s, side in sides.items():
            records[s]["split"] = side
        warnings += of_split + _other_side(records, spec, store_root, folder)
        manifest = {
            "format": FORMAT,
            "kind": SliceStore.kind,
            "spec": spec.to_dict(),
            "parameters": {},
            "source": str(source.resolve()),
            "layout": found.layout,
            "synthetic": is_synthetic(source),
            "test_fraction": test_fraction,
            "subjects": {s: records[s] for s in order},
            "unused": unused,
            "exclusions": exclusions,
            "warnings": warnings,
            "versions": library_versions(),
            "written": now(),
        }
        write_json(folder / "manifest.json", manifest)
    say(
        f"{spec.name}: {len(reused)} reused, {len(records) - len(reused)} prepared, {len(exclusions)} excluded, "
        f"{len(unused)} not needed."
    )
    return SliceStore(folder)


def plan_slices(scans: Sequence[ScanFiles], spec: SliceSpec, folder: Path) -> SlicePlan:
    """Which volumes are done and which are to do. Takes the files' checksums and writes nothing.

    Args:
      scans: the volumes.
      spec: the data set.
      folder: its folder in the store.
    """
    reused, jobs = {}, []
    for files in scans:
        checksums = checksums_of(files)
        fingerprint = json_key({"files": checksums, "settings": _shaping(spec)})
        record = read_json(folder / "subjects" / f"{files.subject}.json")
        group = folder / "subjects" / f"{files.subject}.zarr" / "zarr.json"
        if record is not None and record.get("fingerprint") == fingerprint and group.exists():
            # Where the files lie and whose they are may have changed with no change to the voxels.
            reused[files.subject] = record | origin_of(files)
        else:
            jobs.append(SliceJob(files, spec, checksums, fingerprint, folder))
    return SlicePlan(reused, tuple(jobs))


def slice_settings_that_differ(folder: Path, spec: SliceSpec) -> str:
    """In which settings what is prepared in `folder` differs from `spec`, in words; empty if in none."""
    return settings_that_differ_from(folder, _shaping(spec))


def _shaping(spec: SliceSpec) -> dict[str, Any]:
    """All that a volume's arrays depend on besides the source's files."""
    return {k: v for k, v in spec.to_dict().items() if k not in _NOT_SHAPING}


def _in_waves(
    scans: Sequence[ScanFiles], spec: SliceSpec, folder: Path, workers: int, progress: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, str], set[str]]:
    """Records, failures and the names of those reused, of as many volumes as `spec.max_slices` needs."""
    records: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    reused: set[str] = set()
    at = 0
    while at < len(scans):
        count = len(scans)
        if spec.max_slices:
            have = sum(len(r["samples"]) for r in records.values())
            if have >= spec.max_slices:
                break
            count = _volumes_for(spec.max_slices - have, have, len(records), spec, workers)
        plan = plan_slices(scans[at : at + count], spec, folder)
        done, no = run_jobs(plan.jobs, prepare_slices_of, workers, progress, spec.name)
        records |= {**plan.reused, **done}
        failed |= no
        reused |= set(plan.reused)
        at += count
    return records, failed, reused


def _volumes_for(slices: int, have: int, volumes: int, spec: SliceSpec, workers: int) -> int:
    """How many volumes to read next for that many more slices: as few as can do, in whole rounds of the pool."""
    if spec.with_structure:
        return math.ceil(slices / (spec.with_structure + spec.without_structure))
    return max(math.ceil(slices * volumes / have), 1) if have else workers


def _cap(
    scans: Sequence[ScanFiles], records: dict[str, dict[str, Any]], failed: Mapping[str, str], max_slices: int
) -> tuple[list[str], list[str]]:
    """The volumes that are used, in order, the last one cut to `max_slices` in all; and those that are not."""
    order: list[str] = []
    total = 0
    for files in scans:
        s = files.subject
        if s not in records or (max_slices and total >= max_slices):
            continue
        if max_slices and total + len(records[s]["samples"]) > max_slices:
            records[s] = first_samples(records[s], max_slices - total)
        total += len(records[s]["samples"])
        order.append(s)
    used = set(order)
    return order, [f.subject for f in scans if f.subject not in used and f.subject not in failed]


def _other_side(records: Mapping[str, dict[str, Any]], spec: SliceSpec, store_root: Path, folder: Path) -> list[str]:
    """A warning for each data set of the same group in which a volume is on the other side."""
    warnings = []
    for path in sorted(store_root.glob("*/manifest.json")):
        manifest = read_json(path)
        if path.parent == folder or manifest is None or manifest.get("spec", {}).get("split_group") != spec.split_group:
            continue
        theirs = manifest.get("subjects", {})
        apart = [s for s, r in records.items() if s in theirs and theirs[s].get("split") != r["split"]]
        if apart:
            warnings.append(
                f"{len(apart)} volume(s), {', '.join(apart[:5])}{' ...' if len(apart) > 5 else ''}, are on another "
                f"side of the split in {path.parent}, which shares its subjects (split_group {spec.split_group}): "
                "do not train on one and test on the other."
            )
    return warnings
