"""The order in which files reach a bucket: whoever looks at any moment finds whole checkpoints with their history."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.remote.bucket import Bucket
from tests.remote.test_held import files, write
from tlseg_jax.remote.address import parse_address
from tlseg_jax.remote.kv import open_bucket
from tlseg_jax.remote.listing import WHOLE, counts, remote_files, step_of
from tlseg_jax.remote.mirror import Mirror
from tlseg_jax.runtime.errors import InputError


class Recorded:
    """A bucket that notes what is written, and that can be cut off after so many writes."""

    def __init__(self, bucket: Bucket, most: int = 10**6) -> None:
        address = parse_address(f"{bucket}/run")
        assert address is not None
        self._store: Any = open_bucket(address)
        self.written: list[tuple[str, bytes | None]] = []
        self.most = most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, key: str, value: bytes | None, **given: Any) -> Any:
        if len(self.written) == self.most:
            raise ValueError("ABORTED: cut off")
        self.written.append((key, value))
        return self._store.write(key, value, **given)

    @property
    def order(self) -> list[str]:
        return [f"-{n}" if v is None else n for n, v in self.written]


def test_a_checkpoint_follows_its_history_and_deletions_come_last(bucket: Bucket, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write(run, history="1", checkpoints__2__state="two", summary="s")
    (run / "summary").rename(run / "summary.json")
    store: Any = Recorded(bucket)
    mirror = Mirror(run, store)
    assert mirror.push() == 3
    assert store.order == ["history", "checkpoints/2/state", f"checkpoints/2/{WHOLE}", "summary.json"]
    assert mirror.push() == 0 and len(store.written) == 4  # nothing has changed
    write(run, history="1,2", checkpoints__4__state="four")
    (run / "checkpoints" / "2" / "state").unlink()
    store.written.clear()
    mirror.push()
    assert store.order == [
        "history",
        "checkpoints/4/state",
        f"checkpoints/4/{WHOLE}",
        f"-checkpoints/2/{WHOLE}",
        "-checkpoints/2/state",
    ]


def test_arrays_come_before_the_record_of_their_subject(bucket: Bucket, tmp_path: Path) -> None:
    store: Any = Recorded(bucket)
    files = ("manifest.json", "subjects/a.json", "subjects/a.zarr/image/c/0/0/0", "subjects/a.zarr/zarr.json")
    for name in files:
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    Mirror(tmp_path / "store", store).push()
    assert store.order == [files[2], files[3], files[1], files[0]]


@pytest.mark.parametrize("writes", range(8))
def test_cut_off_at_any_write_the_bucket_holds_no_half(bucket: Bucket, tmp_path: Path, writes: int) -> None:
    """The second checkpoint of step 2 has another set of files than the first, as after going on from damage."""
    run = tmp_path / "run"
    write(run, history="1", checkpoints__2__state="two", checkpoints__2__input="in")
    Mirror(run, Recorded(bucket)).push()  # type: ignore[arg-type]
    (run / "checkpoints" / "2" / "input").unlink()
    write(run, history="1,2", checkpoints__2__state="TWO", checkpoints__2__digest="d", checkpoints__4__state="four")
    store: Any = Recorded(bucket, writes)
    mirror = Mirror(run, store)
    whole = 8
    try:
        mirror.push()
        assert len(store.written) == whole
    except ValueError:
        assert len(store.written) == writes < whole
    second = tmp_path / "second"
    second.mkdir()
    Mirror(second, store).pull(marked=True)
    found = files(second)
    steps = {s: {n: t for n, t in found.items() if step_of(n) == s} for s in map(step_of, found) if s}
    assert steps.get("checkpoints/2") in (
        None,
        {"checkpoints/2/state": "two", "checkpoints/2/input": "in"},
        {"checkpoints/2/state": "TWO", "checkpoints/2/digest": "d"},
    )
    assert steps.get("checkpoints/4") in (None, {"checkpoints/4/state": "four"})
    assert found["history"] == ("1,2" if writes else "1")
    mirror = Mirror(run, Recorded(bucket))  # type: ignore[arg-type]
    mirror.pull(marked=True)
    mirror.push()


def test_a_checkpoint_that_lost_a_file_is_none(bucket: Bucket, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write(run, checkpoints__2__state="two", checkpoints__2__input="in")
    store: Any = Recorded(bucket)
    Mirror(run, store).push()
    assert len(remote_files(store, marked=True)) == 2
    bucket.delete("run/checkpoints/2/input")
    assert remote_files(store, marked=True) == set()


def test_what_counts() -> None:
    assert counts("a/b.json") and counts("checkpoints/20/state/d/abc")
    for name in (
        ".lock",
        "a/.x.json.12.tmp",
        "subjects/.s.zarr.3.tmp/image/zarr.json",
        "x.tmp",
        "checkpoints/20.orbax-checkpoint-tmp-5/state/x",
    ):
        assert not counts(name)
    assert step_of("a/checkpoints_best/20/state/x") == "a/checkpoints_best/20"
    assert step_of("checkpoints/20") is None and step_of("checkpoints/abc/x") is None


BAD = (
    "a/../../../planted",
    "../planted",
    "a//planted",
    "/planted",
    "./planted",
    "a/./planted",
    "..",
    "checkpoints/2/..",
)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_an_object_that_would_be_a_file_elsewhere_is_refused(
    bucket: Bucket, tmp_path: Path, name: str, marked: bool
) -> None:
    bucket.put("run/history", b"1")
    bucket.put(f"run/{name}", b"planted")
    copy = tmp_path / "x" / "y" / "copy"
    copy.mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be a file of its folder: remove it"):
        Mirror(copy, Recorded(bucket)).pull(marked)  # type: ignore[arg-type]
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("name", ["../../../planted", "/planted", "", "a//b", "."])
def test_a_marker_that_lists_a_file_elsewhere_is_refused(bucket: Bucket, tmp_path: Path, name: str) -> None:
    bucket.put(f"run/checkpoints/2/{WHOLE}", json.dumps({"files": [name]}).encode())
    with pytest.raises(InputError, match="cannot be a file of its folder: remove it"):
        Mirror(tmp_path, Recorded(bucket)).pull(True)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": 3}'])
def test_a_damaged_marker_marks_nothing(bucket: Bucket, tmp_path: Path, content: bytes) -> None:
    bucket.put(f"run/checkpoints/2/{WHOLE}", content)
    bucket.put("run/checkpoints/2/state", b"two")
    assert Mirror(tmp_path, Recorded(bucket)).pull(True) == 0  # type: ignore[arg-type]


def test_a_folder_that_a_console_made_is_no_file(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("run/", "run/checkpoints/", "run/checkpoints/2/"):
        bucket.put(name, b"")
    bucket.put("run/checkpoints/2/state", b"two")
    Mirror(tmp_path, Recorded(bucket)).pull(False)  # type: ignore[arg-type]
    assert files(tmp_path) == {"checkpoints/2/state": "two"}


def test_nothing_is_written_through_a_link_out_of_the_copy(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a").symlink_to(tmp_path / "elsewhere")
    bucket.put("run/a/planted", b"x")
    with pytest.raises(InputError, match=r"outside .* through a link"):
        Mirror(tmp_path / "copy", Recorded(bucket)).pull(False)  # type: ignore[arg-type]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("ours", [True, False], ids=["owner", "former owner"])
def test_an_object_that_somebody_else_wrote_is_replaced_by_the_owner_only(
    bucket: Bucket, tmp_path: Path, ours: bool
) -> None:
    asked: list[bool] = []

    def confirm() -> bool:
        asked.append(ours)
        return ours

    run = tmp_path / "run"
    write(run, known="1", gone="1")
    mirror = Mirror(run, Recorded(bucket), confirm=confirm)  # type: ignore[arg-type]
    mirror.push()
    assert not asked
    for name in ("known", "new", "gone"):
        bucket.put(f"run/{name}", b"theirs")
    write(run, known="2", new="2")
    (run / "gone").unlink()
    mirror.push()
    there = {n: bucket.get(f"run/{n}") for n in bucket.results("run")}
    theirs = dict.fromkeys(("known", "new", "gone"), b"theirs")
    assert asked and there == ({"known": b"2", "new": b"2"} if ours else theirs)
    asked.clear()
    if ours:
        assert mirror.push() == 0 and not asked


def test_an_answer_that_got_lost_is_no_conflict(bucket: Bucket, tmp_path: Path) -> None:
    write(tmp_path / "run", a="1")
    bucket.put("run/a", b"1")  # it had arrived

    def confirm() -> bool:
        raise AssertionError

    assert Mirror(tmp_path / "run", Recorded(bucket), confirm=confirm).push() == 1  # type: ignore[arg-type]
