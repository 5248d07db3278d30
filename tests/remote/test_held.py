"""A folder of a bucket that is worked in here: what is fetched, what is sent, in which order, and what wins."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.remote.bucket import Bucket
from tests.remote.conftest import on_machine
from tlseg_jax.remote import held as module
from tlseg_jax.remote import kv
from tlseg_jax.remote.entry import work_folder
from tlseg_jax.remote.held import bring
from tlseg_jax.remote.listing import WHOLE
from tlseg_jax.runtime import signals
from tlseg_jax.runtime.errors import InputError, Preempted
from tlseg_jax.runtime.files import lock_folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.1)
    monkeypatch.setattr(module, "LIFE", 10.0)
    monkeypatch.setattr(module, "RENEW", 0.3)


def runs(bucket: Bucket) -> Path:
    return work_folder(f"{bucket}/runs")


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files(folder: Path) -> dict[str, str]:
    """What a folder holds besides hidden files."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {n: p.read_text() for n, p in found.items() if not any(q.startswith(".") for q in n.split("/"))}


def wait_for(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not there():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_changes_is_sent_meanwhile_and_all_of_it_at_the_end(bucket: Bucket) -> None:
    run = runs(bucket) / "a"
    with lock_folder(run):
        write(run, history="1", checkpoints__2__state="two", checkpoints__2__input="in")
        wait_for(lambda: f"runs/a/checkpoints/2/{WHOLE}" in bucket.names())
        write(run, history="1,2", checkpoints__4__state="four", summary="{}")
        for path in sorted((run / "checkpoints" / "2").iterdir()):
            path.unlink()
        (run / "checkpoints" / "2").rmdir()
        write(run, **{".half.tmp": "x", "checkpoints__6.orbax-checkpoint-tmp__state": "x"})
    assert (
        bucket.results("runs/a")
        == {"history", "checkpoints/4/state", "summary"}
        == {n for n in files(run) if "tmp" not in n}
    )
    assert bucket.get("runs/a/history") == b"1,2"
    assert f"runs/a/checkpoints/2/{WHOLE}" not in bucket.names()


def test_another_machine_goes_on_from_it(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runs(bucket) / "a"
    with lock_folder(first):
        write(first, history="1", checkpoints__2__state="two")
    on_machine(monkeypatch, tmp_path / "second")
    second = runs(bucket) / "a"
    assert second != first
    with lock_folder(second):
        assert files(second) == files(first)
        write(second, history="1,2", checkpoints__4__state="four")
    on_machine(monkeypatch, tmp_path / "machine")
    write(first, history="changed here, and never sent", left="over")
    bring(first)  # who only reads gets theirs too
    assert files(first) == files(second)


def test_a_checkpoint_counts_when_its_last_file_is_there(bucket: Bucket) -> None:
    run = runs(bucket) / "a"
    with lock_folder(run):
        write(run, history="1", checkpoints__2__state="two")
    # What a machine leaves that dies while it sends the next one.
    bucket.put("runs/a/checkpoints/4/state", b"half of it")
    with lock_folder(run):
        assert files(run) == {"history": "1", "checkpoints/2/state": "two"}
        write(run, checkpoints__4__state="four", checkpoints__4__input="in")
    marker = json.loads(bucket.get(f"runs/a/checkpoints/4/{WHOLE}"))
    assert marker == {"files": ["input", "state"]}


def test_a_run_that_a_user_copied_there_is_whole(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("runs/a/checkpoints/2/state", b"two")
    bucket.put("runs/a/history", b"1")
    expected = {"checkpoints/2/state": "two", "history": "1"}
    run = runs(bucket) / "a"
    bring(run)
    assert files(run) == expected
    with lock_folder(run):
        assert files(run) == expected
    assert f"runs/a/checkpoints/2/{WHOLE}" in bucket.names()
    on_machine(monkeypatch, tmp_path / "second")
    bring(runs(bucket) / "a")
    assert files(runs(bucket) / "a") == expected


def test_what_was_never_sent_is_kept_where_nobody_else_wrote(bucket: Bucket) -> None:
    run = runs(bucket) / "a"
    with lock_folder(run):
        write(run, history="1")
    write(run, history="1,2", checkpoints__2__state="two")  # by a process that was killed before it could send
    with lock_folder(run):
        assert files(run) == {"history": "1,2", "checkpoints/2/state": "two"}
    assert bucket.results("runs/a") == {"history", "checkpoints/2/state"}


def test_a_file_that_went_missing_here_is_fetched_again_and_not_deleted_there(bucket: Bucket) -> None:
    run = runs(bucket) / "a"
    with lock_folder(run):
        write(run, history="1", settings="s")
    (run / "history").unlink()  # as who tidies a cache does
    with lock_folder(run):
        assert files(run) == {"history": "1", "settings": "s"}
    assert bucket.results("runs/a") == {"history", "settings"}


def test_a_part_of_what_is_held_is_held(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = runs(bucket) / "sweep"
    with lock_folder(sweep):
        with lock_folder(sweep / "cells" / "a"):
            write(sweep, cells__a__checkpoints__2__state="two")
        bring(sweep / "cells" / "a")
        assert files(sweep) == {"cells/a/checkpoints/2/state": "two"}
    assert {n for n in bucket.names() if n.endswith(".lease")} == {"runs/sweep/.lease"}
    bucket.put("runs/sweep/cells/a/checkpoints/4/state", b"half of it")
    on_machine(monkeypatch, tmp_path / "second")
    cell = runs(bucket) / "sweep" / "cells" / "a"
    bring(cell)  # its checkpoints were marked by whoever held the sweep
    assert files(cell) == {"checkpoints/2/state": "two"}


def test_another_machine_is_refused_meanwhile(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock_folder(runs(bucket) / "a"):
        on_machine(monkeypatch, tmp_path / "second")
        monkeypatch.setattr(module, "_held", set())  # what another process knows of ours
        with pytest.raises(InputError, match=r"s3://.*/runs/a is in use by"), lock_folder(runs(bucket) / "a"):
            pass
        with lock_folder(runs(bucket) / "b"):  # another run is free
            pass
        on_machine(monkeypatch, tmp_path / "machine")


@pytest.mark.slow
def test_one_that_was_taken_over_ends_and_sends_no_more(bucket: Bucket) -> None:
    run = runs(bucket) / "a"
    with pytest.raises(InputError, match="taken over by another process"), lock_folder(run):
        write(run, history="1")
        wait_for(lambda: "runs/a/history" in bucket.names())
        bucket.put("runs/a/.lease", b'{"owner": "other, process 7", "token": "t"}')
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
        write(run, history="1,2")
    assert bucket.get("runs/a/history") == b"1"


OWNER = """
import itertools, sys
from tlseg_jax.runtime.elsewhere import using
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.remote import held
from tlseg_jax.remote.entry import Buckets, work_folder
held.LOOK, held.LIFE, held.RENEW = 0.02, 2.0, 0.3
run = work_folder(sys.argv[1]) / "a"
with using(Buckets()), lock_folder(run):
    for i in itertools.count():
        for name in ("history", "settings", f"new-{i}"):
            (run / name).write_text(f"stale {i}")
"""


@pytest.mark.slow
def test_an_owner_that_was_suspended_past_its_lease_replaces_nothing_of_the_next(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, f"{bucket}/runs"], text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: "runs/a/history" in bucket.names() or owner.poll() is not None)
        owner.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(module, "LIFE", 2.0)
        on_machine(monkeypatch, tmp_path / "second")
        run = runs(bucket) / "a"
        with lock_folder(run):
            write(run, history="next", settings="next", mine="next")
            wait_for(lambda: "runs/a/mine" in bucket.names())
            owner.send_signal(signal.SIGCONT)
            _, said = owner.communicate(timeout=60)
        assert owner.returncode != 0 and "was taken over by another process" in said
        for name in ("history", "settings", "mine"):
            assert bucket.get(f"runs/a/{name}") == b"next"
    finally:
        owner.kill()
        owner.wait()


def test_what_could_not_be_sent_is_an_error_and_is_sent_later(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "PATIENCE", 1)
    run = runs(bucket) / "a"
    with lock_folder(run):
        write(run, history="1")
    with pytest.raises(InputError, match="not all in the bucket") as e, lock_folder(run):
        bucket.remove()
        write(run, history="1,2")
    assert str(run) in str(e.value) and "There is no bucket" in str(e.value) and "\n" not in str(e.value)
    assert files(run) == {"history": "1,2"}
    bucket.create()
    # A pre-empted process says so first: its scheduler is to start it again.
    with pytest.raises(Preempted, match=r"^Stopped\. .*not all in the bucket"), lock_folder(run):
        write(run, history="1,2,3")
        bucket.remove()
        raise Preempted("Stopped.")
    # Any other fault is told as it is.
    bucket.create()
    with pytest.raises(ZeroDivisionError), lock_folder(run):
        bucket.remove()
        raise ZeroDivisionError


def test_new_subjects_of_a_data_set_are_kept_beside_others(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs(bucket) / "store"
    with lock_folder(first, "store"):
        write(first, settings="s")
    on_machine(monkeypatch, tmp_path / "second")
    second = runs(bucket) / "store"
    with lock_folder(second, "store"):
        write(second, subjects__b="b")
    on_machine(monkeypatch, tmp_path / "machine")
    write(first, subjects__a="a")
    with lock_folder(first, "store"):
        assert files(first) == {"settings": "s", "subjects/a": "a", "subjects/b": "b"}
    assert bucket.results("runs/store") == {"settings", "subjects/a", "subjects/b"}


def test_local_folders_know_nothing_of_all_this(tmp_path: Path) -> None:
    folder = work_folder(str(tmp_path / "runs"))
    with lock_folder(folder):
        bring(folder)
        write(folder, a="1")
    assert {p.name for p in folder.iterdir()} == {".lock", "a"}


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "at a place of its own"])
def test_who_is_asked_to_stop_sends_what_it_has(bucket: Bucket, waiting: bool) -> None:
    run = runs(bucket) / "a"
    signals.listen()
    try:
        with pytest.raises(Preempted, match="Stopped by SIGTERM"), lock_folder(run):
            write(run, history="1")
            with signals.waiting() if waiting else contextlib.nullcontext():
                signal.raise_signal(signal.SIGTERM)
    finally:
        signals.forget()
    assert bucket.get("runs/a/history") == b"1"
    assert json.loads(bucket.get("runs/a/.lease"))["owner"] is None
