"""A data set as it is asked for: what of it is there, what is to do, and how shards of it become one."""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.layouts.found import Found
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.preprocess.store.records import (
    Job,
    Reading,
    Records,
    check_kept,
    clear_leftovers,
    json_key,
    keep,
    keep_exclusion,
    kept_record,
    origin,
    settings_that_differ_from,
    source_of,
    stamps_of,
    writing,
)
from tlseg_jax.preprocess.store.shards import Shard, at_work, collect, left_out, merging
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.jobs import run_jobs
from tlseg_jax.runtime.messages import log


@dataclasses.dataclass(frozen=True)
class Whole(abc.ABC):
    """What every shard of a data set knows.

    Attributes:
      source: folder or CSV file of the scans.
      store_root: a second call with the same does only what changed, and a call that was stopped goes on from what is
        done.
      test_fraction: share of the scans held out; None follows the spec.
    """

    spec: DatasetSpec
    source: Path
    store_root: Path
    settings: Any = None
    test_fraction: float | None = None

    masks: ClassVar[bool] = True
    """Whether subjects have brain masks."""

    def __post_init__(self) -> None:
        if self.test_fraction is not None and not 0 <= self.test_fraction <= 1:
            raise InputError(f"A test fraction of {self.test_fraction} is not usable: give one between 0 and 1.")

    @property
    def folder(self) -> Path:
        """The data set's folder in the store."""
        return self.store_root / self.spec.name

    @property
    @abc.abstractmethod
    def shaping(self) -> dict[str, Any]:
        """All that a subject's arrays depend on besides the source's files."""

    @staticmethod
    @abc.abstractmethod
    def read(job: Job) -> Reading:
        """What a worker process reads of a subject; see `records.keep`."""

    @abc.abstractmethod
    def find(self, layout: str, desc: str) -> Found:
        """The scans of the source, in order. Raises InputError: none can be used."""

    def next_wave(self, records: Records, left: int, workers: int) -> int:
        """How many scans to prepare next, of those that are left; 0: no more are needed."""
        del records, workers
        return left

    @abc.abstractmethod
    def finish(self, found: Found, records: Records, failed: Mapping[str, str]) -> tuple[list[str], str]:
        """Do what takes all subjects together and write the manifest.

        Returns:
          The subjects that are used; how many are not, in words.
        """

    def fingerprint(self, checksums: Mapping[str, str]) -> str:
        """Of a subject's files and of all settings."""
        return json_key({"files": dict(checksums), "settings": self.shaping})

    def differs(self) -> str:
        """In which settings what is prepared already differs from this, in words; empty if in none."""
        return settings_that_differ_from(self.folder, self.shaping)

    def begin(self, found: Found, overwrite: bool) -> None:
        """Make the folder ready for these scans, on which nobody else is at work."""
        (self.folder / "subjects").mkdir(exist_ok=True)
        check_kept(self.folder, self.shaping, overwrite)
        clear_leftovers(self.folder, [f.subject for f in found.scans])

    def origin(self, files: ScanFiles) -> dict[str, Any]:
        """What a record says of whose scan it is and where its files are."""
        return origin(files, mask=self.masks)

    def plan(self, scans: Sequence[ScanFiles]) -> tuple[Records, list[Job]]:
        """Records of the subjects whose arrays match their source, and jobs for the others.

        Takes the files' checksums and writes nothing.
        """
        reused, jobs = {}, []
        for files in scans:
            source = source_of(stamps_of(files), checksums_of(files))
            fingerprint = self.fingerprint({k: v["sha256"] for k, v in source.items()})
            record = kept_record(self.folder, files.subject, fingerprint)
            if record is None:
                jobs.append(Job(files, self.spec, source, fingerprint, self.folder, self.settings))
            else:
                # Where the files lie and whose they are may have changed with no change to the voxels.
                reused[files.subject] = {k: v for k, v in record.items() if k != "marked"} | self.origin(files)
        return reused, jobs

    def prepare(
        self,
        *,
        layout: str = "auto",
        desc: str = "",
        shard: Shard | None = None,
        workers: int = 2,
        overwrite: bool = False,
        progress: bool = True,
    ) -> bool:
        """Prepare all of the scans, or one shard of them: whether there is a manifest now.

        Args:
          layout: one of `layouts.LAYOUTS`.
          desc: of BIDS, which of several segmentations.
          workers: processes; 1 stays in this one.
          overwrite: redo a store that was made with other settings.

        Raises:
          InputError: the store was made with other settings or is in use, the source has no usable scan, the label maps
            hold several values and none is named, or the split contradicts itself; or this shard is at work already, or
            shards of another number.
        """
        found, name = self.find(layout, desc), self.spec.name
        if shard:
            return self._prepare_shard(shard, found, workers, overwrite, progress)
        records: Records = {}
        failed: dict[str, str] = {}
        ours: set[str] = set()
        at = 0
        with lock_folder(self.folder, "store"), writing(self.folder):
            self.begin(found, overwrite)
            while count := self.next_wave(records, len(found.scans) - at, workers):
                reused, jobs = self.plan(found.scans[at : at + count])
                if reused:
                    log.info(f"{name}: {len(reused)} scan(s) are prepared already and are reused.")
                done, no = self._run(jobs, workers, progress, name)
                records |= {**reused, **done}
                failed |= no
                ours |= set(reused)
                at += count
            used, others = self.finish(found, records, failed)
        log.info(f"{name}: {len(ours & set(used))} reused, {len(set(used) - ours)} prepared, {others}.")
        return True

    def _run(self, jobs: Sequence[Job], workers: int, progress: bool, title: str) -> tuple[Records, dict[str, str]]:
        return run_jobs(jobs, functools.partial(keep, read=self.read), workers, progress, title, keep_exclusion)

    def _prepare_shard(self, shard: Shard, found: Found, workers: int, overwrite: bool, progress: bool) -> bool:
        """Prepare one shard of the scans, and merge if no other scan is out: whether that was done.

        Shards of the same flags may run at the same time on several machines that share the store, in any order and
        more than once. The one that finds every scan done writes the manifest that a single call would have written,
        which merges too when it is called afterwards.
        """
        name = self.spec.name
        part = dataclasses.replace(found, scans=shard.of(found.scans))
        with writing(self.folder):
            with at_work(self.folder, shard, lambda: self.begin(part, overwrite)):
                reused, jobs = self.plan(part.scans)
                done, failed = self._run(jobs, workers, progress, f"{name} {shard}")
                counts = f"{len(reused)} reused, {len(done)} prepared, {len(failed)} excluded."
                log.info(f"{name}, shard {shard}: {counts}")
            with merging(self.folder) as alone:
                records, failed, out = collect(found.scans, self.folder, self.fingerprint, self.origin)
                if out or not alone:
                    log.info(left_out(name, len(out), len(found.scans)))
                    return False
                used, others = self.finish(found, records, failed)
        log.info(f"{name}: merged, {len(used)} prepared, {others}.")
        return True
