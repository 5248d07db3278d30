"""Worker processes that the system kills: the scan is named and the others are prepared."""

from pathlib import Path

from tests.preprocess.killing_job import KillingJob, be_killed
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.jobs import run_jobs


def test_a_killed_worker_takes_only_its_own_scan_along(tmp_path: Path) -> None:
    """One scan whose worker is always killed, one that comes through with the memory for itself, four others."""
    kills = {"s0": 0, "s1": 99, "s2": 0, "s3": 1, "s4": 0, "s5": 0}
    jobs = [KillingJob(ScanFiles(s, tmp_path / f"{s}.nii.gz"), tmp_path, n) for s, n in kills.items()]
    told = []

    def lost(job: KillingJob, reason: str) -> str:
        told.append(job.files.subject)
        return reason

    records, failed = run_jobs(jobs, be_killed, 2, False, "test", lost)
    assert sorted(records) == ["s0", "s2", "s3", "s4", "s5"]
    assert list(failed) == told == ["s1"]
    assert str(tmp_path / "s1.nii.gz") in failed["s1"] and "memory" in failed["s1"] and "\n" not in failed["s1"]
    assert (tmp_path / "s1").stat().st_size == 2
    assert records["s3"]["tries"] == 2
