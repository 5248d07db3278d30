"""A data set as it is asked for: what of it is there, what is to do, and how shards of it become one."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.layouts.found import Found
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.kept import check_kept, settings_that_differ_from
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.preprocess.store.records import (
    Job,
    Records,
    clear_leftovers,
    json_key,
    keep_exclusion,
    kept_record,
    origin,
    source_of,
    stamps_of,
    writing,
)
from tlseg_jax.preprocess.store.shards import Shard, at_work, collect, left_out, merging
from tlseg_jax.runtime.jobs import Result, run_jobs
from tlseg_jax.runtime.messages import log


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a call would do.

    Attributes:
      reused: subjects whose arrays are there and match their source.
    """

    reused: Records
    jobs: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Whole(abc.ABC):
    """What every shard of a data set knows.

    Attributes:
      source: folder or CSV file of the scans.
    """

    spec: DatasetSpec
    source: Path
    store_root: Path

    masks: ClassVar[bool] = True
    """Whether subjects have brain masks."""

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
    def work(job: Any) -> Result:
        """What a worker process does with a job."""

    def job(self, job: Job) -> Job:
        """A job with what else its work needs."""
        return job

    @abc.abstractmethod
    def finish(self, found: Found, records: Records, failed: Mapping[str, str]) -> str:
        """Do what takes all subjects together and write the manifest.

        Returns:
          How many are prepared and how many not, in words.
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

    def plan(self, scans: Sequence[ScanFiles]) -> Plan:
        """Which subjects are done and which are to do. Takes the files' checksums and writes nothing."""
        reused, jobs = {}, []
        for files in scans:
            source = source_of(stamps_of(files), checksums_of(files))
            fingerprint = self.fingerprint({k: v["sha256"] for k, v in source.items()})
            record = kept_record(self.folder, files.subject, fingerprint)
            if record is None:
                jobs.append(self.job(Job(files, self.spec, source, fingerprint, self.folder)))
            else:
                # Where the files lie and whose they are may have changed with no change to the voxels.
                reused[files.subject] = {k: v for k, v in record.items() if k != "marked"} | self.origin(files)
        return Plan(reused, tuple(jobs))

    def prepare_shard(self, shard: Shard, found: Found, workers: int, overwrite: bool, progress: bool) -> bool:
        """Prepare one shard of the scans, and merge if no other scan is out: whether that was done.

        Shards of the same flags may run at the same time on several machines that share the store, in any order and
        more than once. The one that finds every scan done writes the manifest that a single call would have written,
        which merges too when it is called afterwards.

        Raises:
          InputError: this shard is at work already, or shards of another number.
        """
        name = self.spec.name
        ours = dataclasses.replace(found, scans=shard.of(found.scans))
        with writing(self.folder):
            with at_work(self.folder, shard, lambda: self.begin(ours, overwrite)):
                plan = self.plan(ours.scans)
                done, failed = run_jobs(plan.jobs, self.work, workers, progress, f"{name} {shard}", keep_exclusion)
                counts = f"{len(plan.reused)} reused, {len(done)} prepared, {len(failed)} excluded."
                log.info(f"{name}, shard {shard}: {counts}")
            with merging(self.folder) as alone:
                records, failed, out = collect(found.scans, self.folder, self.fingerprint, self.origin)
                if out or not alone:
                    log.info(left_out(name, len(out), len(found.scans)))
                    return False
                told = self.finish(found, records, failed)
        log.info(f"{name}: merged, {told}.")
        return True
