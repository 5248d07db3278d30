"""`prepare` on a disk that fills up, cannot be written, or is gone: told in one sentence, and what is done is kept."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LAZILY, READ_ONLY, REMOUNT, Mount
from tests.preprocess.test_prepare import SETTINGS, SPEC, flags_of, write_scan, write_source
from tlseg_jax.preprocess import prepare_subject
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError, Preempted
from tlseg_jax.runtime.messages import shown

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def disk(tmp_path: Path, mount: Mount) -> Path:
    """A file system of its own."""
    place = tmp_path / "disk"
    mount(place, 0, "size=8m")
    return place


def run(source: Path, root: Path, **options: Any) -> tuple[Store, list[str]]:
    lines: list[str] = []
    given = {"workers": 1, "progress": False} | options
    with shown(lines.append):
        return prepare_dataset(SPEC, source, root, SETTINGS, **given), lines


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("subjects/*.zarr/**/*") if p.is_file()}


def at_scan(number: int, what: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something happen while a scan is being preprocessed."""
    real = prepare_subject.preprocess_scan

    def preprocess(*args: Any, **kw: Any) -> Any:
        if f"sub-{number}" in str(args[-1]):
            what()
        return real(*args, **kw)

    monkeypatch.setattr(prepare_subject, "preprocess_scan", preprocess)


@pytest.mark.parametrize("kilobytes", [24, 40, 72, 120])
def test_a_disk_that_fills_up(kilobytes: int, source: Path, tmp_path: Path, disk: Path, mount: Mount) -> None:
    whole, _ = run(source, tmp_path / "whole")
    mount(disk, REMOUNT, f"size={kilobytes}k")
    with pytest.raises((OSError, ValueError, RuntimeError), match="No space left on device"):
        run(source, disk)
    folder = disk / SPEC.name
    done = [p.stem for p in folder.glob("subjects/*.json")]
    wanted = arrays(whole.folder)
    for subject in done:
        mine = {k: v for k, v in wanted.items() if k.startswith(f"subjects/{subject}.zarr/")}
        assert {k: v for k, v in arrays(folder).items() if k in mine} == mine
    assert not list(folder.rglob("*.tmp")) and not (folder / "manifest.json").exists()
    mount(disk, REMOUNT, "size=8m")
    store, lines = run(source, disk)
    assert lines[-1].endswith(f"{len(done)} reused, {4 - len(done)} prepared, 0 excluded.")
    assert arrays(store.folder) == wanted


def test_a_disk_that_cannot_be_written(source: Path, disk: Path, mount: Mount) -> None:
    run(source, disk)
    mount(disk, REMOUNT | READ_ONLY, "size=8m")
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\).*--store"):
        run(source, disk)


def test_a_disk_that_can_be_written_no_more(
    source: Path, tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = tmp_path / SPEC.name / "subjects"
    at_scan(2, lambda: mount(subjects, READ_ONLY, "size=1m"), monkeypatch)
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\).*what is done is kept") as e:
        run(source, tmp_path)
    assert "\n" not in str(e.value)
    monkeypatch.undo()
    assert not ctypes.CDLL(None).umount2(bytes(subjects), LAZILY)
    before = arrays(tmp_path / SPEC.name)
    assert {k.split("/")[1] for k in before} == {"sub-0.zarr", "sub-1.zarr"}
    store, lines = run(source, tmp_path)
    assert lines[-1].endswith("2 reused, 2 prepared, 0 excluded.")
    assert {k: v for k, v in arrays(store.folder).items() if k in before} == before


def test_a_store_that_disappears_is_not_begun_anew_elsewhere(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, away = tmp_path / "store", tmp_path / "away"
    at_scan(1, lambda: os.rename(root / SPEC.name, away), monkeypatch)  # noqa: PTH104 - it is to return None
    with pytest.raises(InputError, match=r"small disappeared while it was being written.*same command again") as e:
        run(source, root)
    assert "\n" not in str(e.value)
    monkeypatch.undo()
    assert not (root / SPEC.name).exists()
    away.rename(root / SPEC.name)
    _, lines = run(source, root)
    assert lines[-1].endswith("1 reused, 3 prepared, 0 excluded.")


def test_a_damaged_subject_is_made_again_as_the_sentence_says(source: Path, tmp_path: Path) -> None:
    store, _ = run(source, tmp_path)
    before = arrays(store.folder)
    group = store.folder / "subjects" / "sub-1.zarr"
    chunk = next(p for p in (group / "image" / "c").rglob("*") if p.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 16
    chunk.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"sub-1\.zarr is missing or damaged.*remove that folder and run prepare"):
        Store(store.folder).image("sub-1")
    shutil.rmtree(group)
    again, lines = run(source, tmp_path)
    assert lines[-1].endswith("3 reused, 1 prepared, 0 excluded.")
    assert arrays(again.folder) == before


def test_being_stopped_is_no_exclusion(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise Preempted("The machine is being taken away.")

    at_scan(2, stop, monkeypatch)
    with pytest.raises(Preempted):
        run(source, tmp_path)
    monkeypatch.undo()
    store, lines = run(source, tmp_path)
    assert lines[-1].endswith("2 reused, 2 prepared, 0 excluded.") and len(store.subjects()) == 4


@pytest.mark.slow
def test_sigterm_ends_the_command_with_the_code_for_a_requeue(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(60):
        write_scan(source, f"sub-{i:02}", seed=i)
    given = [*flags_of(source, tmp_path, train=50, test=10), "--workers=2"]
    command = [sys.executable, "-m", "experiments.prepare", *given]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "store").glob("mine/subjects/*.json")):
        assert process.poll() is None
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75 and "Traceback" not in errors, errors
    assert "Stopped by SIGTERM" in errors and not (tmp_path / "store" / "mine" / "manifest.json").exists()
    done = len(list((tmp_path / "store").glob("mine/subjects/*.json")))
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and f"mine: {done} reused, {60 - done} prepared, 0 excluded." in again.stdout
