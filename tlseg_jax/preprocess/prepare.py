"""Scans to a prepared data set on disk: in parallel, resumable, with what failed named."""

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import multiprocessing
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.splits import assign_splits
from tlseg_jax.errors import InputError
from tlseg_jax.preprocess import crop, register
from tlseg_jax.preprocess.geometry import Affine, Box
from tlseg_jax.preprocess.layouts import find_scans
from tlseg_jax.preprocess.pipeline import PrepareSettings, needs_registration, preprocess_scan
from tlseg_jax.preprocess.read import read_scan
from tlseg_jax.preprocess.scan import ExclusionError, Scan, ScanFiles
from tlseg_jax.preprocess.store import FORMAT, Store, write_json, write_subject

REGISTRATIONS = ".registrations"
"""Folder of the store's root where registrations are kept: data sets of the same scans share them."""

PACKAGES = ("numpy", "scipy", "SimpleITK", "nibabel", "nilearn", "tensorstore", "tlseg-jax")


@dataclasses.dataclass(frozen=True)
class _Job:
    """All that a worker needs for one subject; picklable."""

    files: ScanFiles
    spec: DatasetSpec
    settings: PrepareSettings
    checksums: Mapping[str, str]
    fingerprint: str
    folder: Path
    cache: Path


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a call would do.

    Attributes:
      reused: subjects whose prepared volumes are there and match their source.
      jobs: subjects to prepare.
    """

    reused: Mapping[str, dict[str, Any]]
    jobs: tuple[_Job, ...]


def prepare_dataset(
    spec: DatasetSpec,
    source: Path,
    store_root: Path,
    settings: PrepareSettings,
    *,
    layout: str = "auto",
    label_values: tuple[int, ...] = (),
    workers: int = 2,
    test_fraction: float | None = None,
    split_seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Store:
    """Prepare every scan of `source` into `store_root/spec.name/`.

    A second call does only what changed: each subject's record holds the checksums of its files and
    the settings. A call that was stopped goes on from the subjects that are done.

    Args:
      spec: the data set; its name is the folder's.
      source: folder or CSV file of scans and labels.
      store_root: where prepared data sets are.
      settings: the steps' settings.
      layout: "auto", "pairs", "csv", "bids" or "nnunet".
      label_values: values of the label map that make the structure; empty takes the spec's, and if
        that has none every value above 0.
      workers: processes; 1 stays in this one.
      test_fraction: share of the scans held out; None takes the paper's.
      split_seed: which random split.
      overwrite: redo a store that was made with other settings.
      progress: whether to show a bar.
      say: prints a line.

    Raises:
      InputError: the store was made with other settings or is in use, the source has no usable scan,
        or the split contradicts itself.
    """
    spec = effective_spec(spec, label_values)
    fraction = spec.test_fraction if test_fraction is None else test_fraction
    if not 0 <= fraction <= 1:
        raise InputError(f"A test fraction of {fraction} is not usable: give one between 0 and 1.")
    found = find_scans(source, layout)
    exclusions = [{"subject": e.subject, "reason": e.reason} for e in found.exclusions]
    _check_any(len(found.scans), exclusions, source)

    folder = store_root / spec.name
    with _locked(folder):
        _check_settings(folder, spec, settings, overwrite)
        plan = plan_scans(found.scans, spec, settings, store_root)
        if plan.reused:
            say(f"{spec.name}: {len(plan.reused)} subject(s) are prepared already and are reused.")
        records = dict(plan.reused)
        failed = _run(plan.jobs, workers, progress, spec.name, records)
        exclusions += [{"subject": s, "reason": r} for s, r in sorted(failed.items())]
        _check_any(len(records), exclusions, source)

        warnings = _split(records, found.scans, spec, store_root, folder, fraction, split_seed)
        box, cut = _patch_box(records, spec, folder)
        warnings += cut
        manifest = {
            "format": FORMAT,
            "spec": spec.to_dict(),
            "parameters": settings.to_dict() | {"register": register.PARAMETERS},
            "source": str(source.resolve()),
            "layout": found.layout,
            "test_fraction": fraction,
            "split_seed": split_seed,
            "patch_box": box.to_dict() if box else None,
            "subjects": {s: records[s] for s in sorted(records)},
            "exclusions": exclusions,
            "warnings": warnings,
            "versions": _versions(),
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / "manifest.json", manifest)
    say(
        f"{spec.name}: {len(plan.reused)} reused, {len(records) - len(plan.reused)} prepared, "
        f"{len(exclusions)} excluded."
    )
    return Store(folder)


def effective_spec(spec: DatasetSpec, label_values: tuple[int, ...]) -> DatasetSpec:
    """The spec with the label values that are asked for."""
    return dataclasses.replace(spec, label_values=tuple(sorted(set(label_values or spec.label_values))))


def plan_scans(
    scans: Sequence[ScanFiles], spec: DatasetSpec, settings: PrepareSettings, store_root: Path
) -> Plan:
    """Which subjects are done and which are to do. Reads the source's files for their checksums, writes nothing."""
    folder = store_root / spec.name
    reused, jobs = {}, []
    for files in scans:
        paths = {"image": files.image, "label": files.label, "mask": files.mask}
        checksums = {k: _sha256(p) for k, p in paths.items() if p is not None}
        fingerprint = _key({"files": checksums, "spec": _shaping(spec), "settings": settings.to_dict()})
        record = _read_json(folder / "subjects" / f"{files.subject}.json")
        array = folder / "subjects" / f"{files.subject}.zarr" / "zarr.json"
        if record is not None and record.get("fingerprint") == fingerprint and array.exists():
            # Where the files lie and whose they are may have changed with no change to the voxels.
            reused[files.subject] = record | _origin(files)
        else:
            jobs.append(
                _Job(files, spec, settings, checksums, fingerprint, folder, store_root / REGISTRATIONS)
            )
    return Plan(reused, tuple(jobs))


def _origin(files: ScanFiles) -> dict[str, Any]:
    return {
        "person": files.person,
        "image": str(files.image),
        "label": str(files.label) if files.label else None,
        "mask": str(files.mask) if files.mask else None,
    }


def _shaping(spec: DatasetSpec) -> dict[str, Any]:
    """The fields of a spec that a prepared volume depends on."""
    keys = ("space", "dimensions", "spacing", "skull_strip", "normalise", "label_values")
    return {k: v for k, v in spec.to_dict().items() if k in keys}


def _check_settings(folder: Path, spec: DatasetSpec, settings: PrepareSettings, overwrite: bool) -> None:
    """Refuse a folder prepared with other settings; note ours, before the first subject is written."""
    ours: dict[str, Any] = {"format": FORMAT} | _shaping(spec) | settings.to_dict()
    theirs = _read_json(folder / "settings.json")
    if theirs is not None and not overwrite:
        differ = [
            f"{k} was {theirs.get(k)!r} and is now {ours.get(k)!r}"
            for k in sorted(ours.keys() | theirs.keys())
            if ours.get(k) != theirs.get(k)
        ]
        if differ:
            raise InputError(
                f"{folder} was prepared with other settings ({'; '.join(differ)}): choose another --store or "
                "--name, or prepare it anew with --overwrite."
            )
    if theirs != ours:
        write_json(folder / "settings.json", ours)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The data set's folder, made if need be, for this process alone."""
    try:
        (folder / "subjects").mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except (PermissionError, NotADirectoryError, FileExistsError) as e:
        raise InputError(f"{folder} cannot be written ({e.strerror}): choose another --store.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder} is being prepared by another process: wait for it, or choose another --store."
            ) from None
        yield


def _check_any(usable: int, exclusions: Sequence[Mapping[str, str]], source: Path) -> None:
    if usable:
        return
    if not exclusions:
        raise InputError(f"There is no scan in {source}: check --source and --layout.")
    first = " | ".join(f"{e['subject']}: {e['reason']}" for e in exclusions[:3])
    more = f" | and {len(exclusions) - 3} more" if len(exclusions) > 3 else ""
    raise InputError(f"No scan of {source} can be used. {first}{more}")


# --- one subject -------------------------------------------------------------------------------


def _prepare_one(job: _Job) -> dict[str, Any] | str:
    """One subject to disk: its record, or the reason why not. Faults in writing are raised."""
    start = time.perf_counter()
    try:
        scan = read_scan(job.files, job.spec.label_values)
        read = round(time.perf_counter() - start, 3)
        known, seconds, details = _registration(job, scan)
        done = preprocess_scan(scan, job.spec, job.settings, known, str(job.files.image))
        assert done.label is not None
        record = {
            **_origin(job.files),
            "split": "train",
            "shape": list(done.grid.shape),
            "affine": done.grid.affine.tolist(),
            "space_to_world": done.space_to_world.tolist(),
            "scan_shape": list(scan.image.shape),
            "scan_affine": np.asarray(scan.affine, float).tolist(),
            **{f"{k}_sha256": job.checksums.get(k) for k in ("image", "label", "mask")},
            "fingerprint": job.fingerprint,
            "label_voxels": int(done.label.sum()),
            "label_ml": _millilitres(scan),
            "centre_of_mass": list(crop.centre_of_mass(done.label)),
            "label_box": crop.tight_box(done.label).to_dict(),
            "seconds": {"read": read} | seconds | done.seconds,
            "details": details | done.details,
        }
        image = done.image.astype(np.float16)
        if not np.isfinite(image).all():
            raise ExclusionError(
                f"{job.files.image} has voxels more than 65,000 standard deviations from the mean: "
                "remove these outliers."
            )
    except ExclusionError as e:
        return str(e)
    except Exception as e:  # one scan that trips a library must not end the others' work
        return f"{job.files.image} failed with an unexpected {type(e).__name__} ({e}): please report this."
    start = time.perf_counter()
    write_subject(job.folder / "subjects" / f"{job.files.subject}.zarr", image, done.label)
    record["seconds"]["write"] = round(time.perf_counter() - start, 3)
    write_json(job.folder / "subjects" / f"{job.files.subject}.json", record)
    return record


def _millilitres(scan: Scan) -> float:
    """The label's volume in the person, not in the common space, where heads are all of one size."""
    assert scan.label is not None
    return float(scan.label.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000)


def _registration(job: _Job, scan: Scan) -> tuple[Affine | None, dict[str, float], dict[str, Any]]:
    """The registration this scan needs, from the cache or newly made; its seconds; its figures."""
    if not needs_registration(scan, job.spec, job.settings):
        return None, {}, {}
    start = time.perf_counter()
    key = _key({"image": job.checksums["image"], "parameters": register.PARAMETERS})
    path = job.cache / f"{key}.json"
    kept = _read_json(path)
    if kept is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            matrix = np.array(kept["mni_to_world"], float)
            if matrix.shape == (4, 4) and np.isfinite(matrix).all():
                return matrix, {"register": 0.0}, {"registration": kept["figures"] | {"reused": True}}
    found = register.register(scan.image, scan.affine, str(job.files.image))
    figures = {"information": found.information, "scales": list(found.scales)}
    seconds = {"register": round(time.perf_counter() - start, 3)}
    path.parent.mkdir(exist_ok=True)
    write_json(
        path,
        {"image": str(job.files.image), "mni_to_world": found.mni_to_world.tolist(), "figures": figures},
    )
    return found.mni_to_world, seconds, {"registration": figures}


# --- all subjects ------------------------------------------------------------------------------


def _ignore_interrupt() -> None:
    """In a worker: Ctrl-C is the parent's to handle; a scan in flight is finished and kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(
    jobs: Sequence[_Job], workers: int, progress: bool, title: str, records: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """Do the jobs, adding to `records`; the reasons of those that failed."""
    if not jobs:
        return {}
    from tqdm import tqdm

    failed: dict[str, str] = {}
    bar = tqdm(total=len(jobs), desc=title, unit="scan", disable=not progress)

    def take(job: _Job, result: dict[str, Any] | str) -> None:
        if isinstance(result, str):
            failed[job.files.subject] = result
        else:
            records[job.files.subject] = result
        bar.update()

    with bar:
        if workers <= 1 or len(jobs) == 1:
            for job in jobs:
                take(job, _prepare_one(job))
            return failed
        pool = ProcessPoolExecutor(
            min(workers, len(jobs)), multiprocessing.get_context("spawn"), _ignore_interrupt
        )
        try:
            futures: dict[Future[dict[str, Any] | str], _Job] = {pool.submit(_prepare_one, j): j for j in jobs}
            for future in as_completed(futures):
                take(futures[future], future.result())
        except BrokenProcessPool:
            raise InputError(
                "A worker process was killed, most likely for want of memory: run the same command again with "
                "--workers=1; what is done is kept."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return failed


def _split(
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
    for path in sorted(store_root.glob("*/manifest.json")):
        manifest = _read_json(path)
        if manifest is None or manifest.get("spec", {}).get("split_group") != spec.split_group:
            continue
        if path.parent == folder and (
            manifest.get("split_seed") != seed or manifest.get("test_fraction") != fraction
        ):
            continue  # another split is asked for
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
        return ["No subject is left for training: every one is in the test set."]
    return []


def _patch_box(
    records: Mapping[str, dict[str, Any]], spec: DatasetSpec, folder: Path
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
            label = _read_label(folder, s)
            lost[s] = (crop.lost_voxels(label, box), int(label.sum()))
    return box, [crop.box_warning(lost, spec.patch_size)] if lost else []


def _read_label(folder: Path, subject: str) -> Any:
    import tensorstore as ts

    path = str(folder / "subjects" / f"{subject}.zarr" / "label")
    array = ts.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}, open=True, read=True
    ).result()
    return array.read().result() > 0


def _sha256(path: Path) -> str:
    """The file's checksum; one that cannot be read is left for the reader to explain."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        return f"unreadable: {e.strerror}"


def _key(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name.replace("-", "_")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name.replace("-", "_")] = "not installed as a package"
    return out
