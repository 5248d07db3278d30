"""One owner at a time: a live one is left alone, a dead one's lease runs out, one that was taken over is told."""

import json
import threading
import time
from pathlib import Path

import pytest

from tests.remote.bucket import Bucket
from tlseg_jax.remote import lease as module
from tlseg_jax.remote.address import parse_address
from tlseg_jax.remote.kv import open_bucket
from tlseg_jax.remote.lease import LEASE, Lease, read_lease
from tlseg_jax.runtime.errors import InputError

LIFE, RENEW = 3.0, 0.2


def lease(bucket: Bucket, copy: Path, lost: threading.Event | None = None) -> Lease:
    address = parse_address(f"{bucket}/runs")
    assert address is not None
    copy.mkdir(exist_ok=True)
    return Lease(open_bucket(address), address, copy, (lost or threading.Event()).set, life=LIFE, renew=RENEW)


def stored(bucket: Bucket) -> dict[str, object]:
    found: dict[str, object] = json.loads(bucket.get(f"runs/{LEASE}"))
    return found


def test_a_live_owner_keeps_it(bucket: Bucket, tmp_path: Path, said: list[str]) -> None:
    with lease(bucket, tmp_path / "a"):
        owner = str(stored(bucket)["owner"])
        with pytest.raises(InputError, match=f"in use by {owner}: wait for it") as e:
            lease(bucket, tmp_path / "b").__enter__()
        assert "\n" not in str(e.value) and str(bucket) in str(e.value)
        assert len(said) == 1 and "waiting up to" in said[0]
    assert stored(bucket)["owner"] is None
    with lease(bucket, tmp_path / "b"):  # given back: no waiting
        assert len(said) == 1


def test_a_dead_owners_runs_out(bucket: Bucket, tmp_path: Path, said: list[str]) -> None:
    dead = {"owner": "other, process 7", "token": "t", "renewed": time.time(), "marked": True}
    bucket.put(f"runs/{LEASE}", json.dumps(dead).encode())
    began = time.monotonic()
    with lease(bucket, tmp_path / "a") as held:
        assert time.monotonic() - began >= LIFE
        assert held.marked and stored(bucket)["owner"] != dead["owner"]
    assert "other, process 7" in said[0]


def test_one_that_died_on_this_machine_or_long_ago_is_not_waited_for(
    bucket: Bucket, tmp_path: Path, said: list[str]
) -> None:
    held = lease(bucket, tmp_path / "a")
    held.__enter__()
    held._end.set()  # as a kill would: no more renewals, and nothing given back
    assert held._thread is not None
    held._thread.join()
    with lease(bucket, tmp_path / "a"):
        assert not said
    old = {"owner": "other, process 7", "token": "t", "renewed": time.time() - 100 * LIFE}
    bucket.put(f"runs/{LEASE}", json.dumps(old).encode())
    with lease(bucket, tmp_path / "b"):
        assert not said


def test_of_two_that_want_it_one_gets_it(bucket: Bucket, tmp_path: Path) -> None:
    got: list[int] = []
    refused: list[InputError] = []
    gate = threading.Barrier(4)

    def want(i: int) -> None:
        mine = lease(bucket, tmp_path / str(i))
        gate.wait()
        try:
            with mine:
                got.append(i)
                time.sleep(1)
        except InputError as e:
            refused.append(e)

    threads = [threading.Thread(target=want, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(got) == 1 and len(refused) == 3


def test_one_that_was_taken_over_is_told_and_writes_no_more(bucket: Bucket, tmp_path: Path) -> None:
    lost = threading.Event()
    with lease(bucket, tmp_path / "a", lost=lost) as held:
        taker = {"owner": "other, process 7", "token": "t", "renewed": time.time()}
        bucket.put(f"runs/{LEASE}", json.dumps(taker).encode())
        assert lost.wait(10)
        assert held.lost
    assert stored(bucket) == taker


def test_it_is_renewed(bucket: Bucket, tmp_path: Path) -> None:
    address = parse_address(f"{bucket}/runs")
    assert address is not None
    with lease(bucket, tmp_path / "a") as held:
        first = read_lease(open_bucket(address))
        held.mark()
        until = time.monotonic() + 20
        while (now := read_lease(open_bucket(address)))["renewed"] <= first["renewed"] + RENEW:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert now["token"] == first["token"] and now["marked"] is True


def test_one_that_was_deleted_is_written_again(bucket: Bucket, tmp_path: Path) -> None:
    with lease(bucket, tmp_path / "a") as held:
        bucket.delete(f"runs/{LEASE}")
        until = time.monotonic() + 20
        while f"runs/{LEASE}" not in bucket.names():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert not held.lost
    assert stored(bucket)["owner"] is None


def test_an_owner_that_cannot_renew_counts_on_it_no_more_before_it_runs_out(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease(bucket, tmp_path / "a") as held:
        assert held.valid
        now = module._now()
        held._end.set()  # no more renewals
        monkeypatch.setattr(module, "_now", lambda: now + 0.9 * LIFE)
        assert not held.valid and not held.lost
        assert held.confirm() and held.valid
        taker = {"owner": None}  # somebody took it and is done with it
        bucket.put(f"runs/{LEASE}", json.dumps(taker).encode())
        assert not held.confirm() and held.lost and not held.valid
    assert stored(bucket) == taker
