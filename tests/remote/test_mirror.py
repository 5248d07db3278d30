"""The order in which files reach a bucket: whoever looks at any moment finds whole checkpoints with their history."""

from pathlib import Path
from typing import Any

import pytest

from tests.remote.bucket import Bucket
from tests.remote.test_held import files, write
from tlseg_jax.remote.address import parse_address
from tlseg_jax.remote.kv import open_bucket
from tlseg_jax.remote.listing import WHOLE, counts, remote_files, step_of
from tlseg_jax.remote.mirror import Mirror


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
        "history", "checkpoints/4/state", f"checkpoints/4/{WHOLE}", f"-checkpoints/2/{WHOLE}", "-checkpoints/2/state",
    ]  # fmt: skip


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
        None, {"checkpoints/2/state": "two", "checkpoints/2/input": "in"},
        {"checkpoints/2/state": "TWO", "checkpoints/2/digest": "d"},
    )  # fmt: skip
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
    for name in (".lock", "a/.x.json.12.tmp", "subjects/.s.zarr.3.tmp/image/zarr.json", "x.tmp",
                 "checkpoints/20.orbax-checkpoint-tmp-5/state/x"):  # fmt: skip
        assert not counts(name)
    assert step_of("a/checkpoints_best/20/state/x") == "a/checkpoints_best/20"
    assert step_of("checkpoints/20") is None and step_of("checkpoints/abc/x") is None
