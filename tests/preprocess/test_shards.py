"""A data set prepared in shards: the same manifest as in one call, whoever ends last, and nobody in another's way."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.preprocess import test_prepare_slices as slices
from tests.preprocess.prepare_kill_trials import without_times
from tests.preprocess.slice_volumes import anatomy, write_pair
from tests.preprocess.test_prepare import SETTINGS, SPEC, flags_of, write_scan
from tests.processes import python
from tlseg_jax.preprocess import whole as whole_module
from tlseg_jax.preprocess.prepare import Volumes, prepare_dataset
from tlseg_jax.preprocess.prepare_slices import Slices, prepare_slices
from tlseg_jax.preprocess.store import records, shards
from tlseg_jax.preprocess.store.shards import Shard, at_work, merging, parse_shard
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import BaseStore, Store
from tlseg_jax.runtime.elsewhere import Elsewhere
from tlseg_jax.runtime.errors import InputError, InUse
from tlseg_jax.runtime.files import lock_folder

ROOT = Path(__file__).resolve().parents[2]
QUIET: dict[str, Any] = {"workers": 1, "progress": False}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five scans: one has no label map, the image of one is none."""
    folder = tmp_path / "source"
    folder.mkdir()
    for i in range(5):
        write_scan(folder, f"sub-{i}", seed=i)
    (folder / "sub-1_labels.nii.gz").unlink()
    (folder / "sub-2_T1w.nii.gz").write_text("not an image")
    return folder


def whole(source: Path, root: Path) -> Store:
    return prepare_dataset(SPEC, source, root, SETTINGS, **QUIET)


def part(text: str, source: Path, root: Path) -> Store | None:
    asked = Volumes(SPEC, source, root, SETTINGS)
    return Store(asked.folder) if asked.prepare(shard=parse_shard(text), **QUIET) else None


def arrays(store: BaseStore) -> dict[str, bytes]:
    subjects = store.folder / "subjects"
    return {str(p.relative_to(subjects)): p.read_bytes() for p in subjects.glob("*.zarr/**/*") if p.is_file()}


@pytest.mark.parametrize("order", ["0/1", "0/2 1/2", "2/3 0/3 0/3 2/3 1/3 0/3", "5/6 4/6 3/6 2/6 1/6 0/6"])
def test_shards_give_the_manifest_of_one_call_whoever_is_last(
    order: str, source: Path, tmp_path: Path, said: list[str]
) -> None:
    one = whole(source, tmp_path / "one")
    wanted = without_times(one.manifest)
    assert [e["subject"] for e in wanted["exclusions"]] == ["sub-1", "sub-2"]
    finished: set[int] = set()
    merged = None
    for text in order.split():
        shard = parse_shard(text)
        merged = part(text, source, tmp_path / "many")
        finished.add(shard.index)
        # Four scans are usable at first sight, so shards from the fifth on have none.
        assert (merged is not None) == (set(range(min(4, shard.count))) <= finished)
        assert (tmp_path / "many" / SPEC.name / "manifest.json").exists() == (merged is not None)
    assert merged is not None
    assert without_times(merged.manifest) == wanted
    assert arrays(merged) == arrays(one)
    again = whole(source, tmp_path / "many")
    assert without_times(again.manifest) == wanted
    assert said[-1].endswith("3 reused, 0 prepared, 2 excluded.")


def test_a_merge_waits_for_scans_that_have_changed_and_reads_no_others(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    assert part("0/2", source, tmp_path) is None
    assert "2 of 4 scans are still out" in said[-1]
    first = part("1/2", source, tmp_path)
    assert first is not None
    read: list[str] = []
    real = whole_module.checksums_of

    def noted(files: Any) -> dict[str, str]:
        read.append(files.subject)
        return real(files)

    for module in (whole_module, records):
        monkeypatch.setattr(module, "checksums_of", noted)
    write_scan(source, "sub-4", radius=4, seed=4)  # in shard 1: scans 0, 2, 3 and 4 are the usable ones
    assert part("0/2", source, tmp_path) is None
    assert "1 of 4 scans are still out" in said[-1]
    assert read == ["sub-0", "sub-3", "sub-4"]  # its own, and the one whose size or time is another
    again = part("1/2", source, tmp_path)
    assert again is not None
    assert again.record("sub-4")["label_ml"]["ball"] > first.record("sub-4")["label_ml"]["ball"]
    assert again.record("sub-0") == first.record("sub-0")


def test_a_fault_that_is_mended_is_an_exclusion_no_more(source: Path, tmp_path: Path) -> None:
    for text in ("0/2", "1/2"):
        part(text, source, tmp_path)
    write_scan(source, "sub-2", seed=2)
    store = part("1/2", source, tmp_path)
    assert store is not None and "sub-2" in store.subjects()
    assert [e["subject"] for e in store.manifest["exclusions"]] == ["sub-1"]
    assert not list((store.folder / "subjects").glob("*.excluded.json"))


def test_other_settings_are_refused_in_every_shard(source: Path, tmp_path: Path) -> None:
    part("0/2", source, tmp_path)
    other = Volumes(SPEC, source, tmp_path, dataclasses.replace(SETTINGS, order=0))
    with pytest.raises(InputError, match="order was 1 and is now 0"):
        other.prepare(shard=Shard(1, 2), **QUIET)
    assert [other.prepare(shard=Shard(i, 2), overwrite=True, **QUIET) for i in (1, 0)] == [False, True]
    assert Store(other.folder).manifest["parameters"]["order"] == 0


def test_who_may_work_beside_whom(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "small"
    begun: list[str] = []
    with at_work(folder, Shard(0, 2), lambda: begun.append("0/2")):
        with (
            pytest.raises(InputError, match=r"Shard 0/2 of .* by another process"),
            at_work(folder, Shard(0, 2), lambda: begun.append("twice")),
        ):
            pass
        with (
            pytest.raises(InputError, match="prepared in 2 shards, not 3"),
            at_work(folder, Shard(1, 3), lambda: begun.append("1/3")),
        ):
            pass
        with pytest.raises(InputError, match="in use by another process"), lock_folder(folder, "store"):
            pass
        with at_work(folder, Shard(1, 2), lambda: begun.append("1/2")):
            pass
        with merging(folder) as alone:  # as shard 1 does, while shard 0 is at work
            assert not alone
    with merging(folder) as alone:
        assert alone
    with (
        lock_folder(folder, "store"),
        pytest.raises(InputError, match="prepares all of it"),
        at_work(folder, Shard(0, 2), lambda: begun.append("beside all")),
    ):
        pass
    with at_work(folder, Shard(2, 3), lambda: begun.append("2/3")):  # nobody holds anything any more
        pass
    assert begun == ["0/2", "1/2", "2/3"]
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written"),
        at_work(tmp_path / "file" / "small", Shard(0, 1), lambda: None),
    ):
        pass


def test_shards_of_slices_are_capped_by_the_merge(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "source"
    for i in (0, 1, 2, 3, 10):
        image, label = anatomy(liver=(4, 8 + i % 4), seed=i)
        write_pair(folder, str(i), image, 0 * label if i == 1 else label)
    write_pair(folder, "11", image, 0 * label)  # faulty, and not needed
    spec = slices.SPEC.changed(max_slices=15)
    one = prepare_slices(spec, folder, tmp_path / "one", **QUIET)
    assert one.manifest["unused"] == ["10", "11"]
    assert [e["subject"] for e in one.manifest["exclusions"]] == ["1"]
    many = Slices(spec, folder, tmp_path / "many")
    assert [many.prepare(shard=Shard(i, 3), **QUIET) for i in (1, 2, 0)] == [False, False, True]
    merged = SliceStore(many.folder)
    assert without_times(merged.manifest) == without_times(one.manifest)
    assert said[-1] == "few: merged, 3 prepared, 1 excluded, 2 not needed as 15 slices were asked for."
    for subject in one.subjects():
        assert (one.volume_image(subject) == merged.volume_image(subject)).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [("4/4", "use 0/4 to 3/4"), ("1", "give it as i/n"), ("-1/2", "give it as i/n"), ("0/0", "not one of 0 shards")],
)
def test_shards_that_are_none_are_one_sentence(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as e:
        parse_shard(text)
    assert "\n" not in str(e.value)


def test_shards_at_the_same_time_merge_once_all_are_done(source: Path, tmp_path: Path) -> None:
    given = [*flags_of(source, tmp_path), "--nobias_correction", "--workers=1"]
    command = [sys.executable, "-m", "experiments.prepare", *given]
    running = [
        subprocess.Popen(
            [*command, f"--shard={i}/2"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    said = [p.communicate(timeout=300) for p in running]
    assert [p.returncode for p in running] == [0, 0], said
    assert any("mine: merged, 3 prepared, 2 excluded." in out for out, _ in said), said
    manifest = json.loads((tmp_path / "store" / "mine" / "manifest.json").read_text())
    assert sorted(manifest["subjects"]) == ["sub-0", "sub-3", "sub-4"]
    wrong = python(*command[1:], "--shard=2/2")
    assert wrong.returncode == 2 and "use 0/2 to 1/2" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_merge_on_another_machine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket the locks of this machine say nothing of the others: a merge there may not have found our shard."""
    tries: list[int] = []

    @contextlib.contextmanager
    def held(place: Elsewhere, folder: Path, **_: object) -> Iterator[None]:
        tries.append(len(tries))
        if len(tries) < 3:
            raise InUse("s3://bucket/store is in use by another process.")
        yield

    monkeypatch.setattr(Elsewhere, "hold", held)
    monkeypatch.setattr(shards.time, "sleep", lambda _: None)
    (tmp_path / ".shards").mkdir(parents=True)
    with merging(tmp_path) as alone:
        assert alone and len(tries) == 3
    monkeypatch.setattr(shards, "MERGE_SECONDS", -1.0)
    tries.clear()
    with pytest.raises(InUse), merging(tmp_path):
        pass
