"""The store read by another library, damaged on purpose, and filled until the disk is full."""

import copy
import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.conftest import SIDE, MakeStore, Mount, blob
from tlseg_jax.geometry import Box, crop_or_pad
from tlseg_jax.preprocess.store.store import Store, open_array, write_subject
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import local_folder, write_json


def subject_files(folder: Path) -> list[Path]:
    """Every file below, hidden ones too."""
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_another_zarr_reader_reads_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(70, 20, 130)), rng.integers(0, 2, (70, 20, 130)).astype(bool)
    write_subject(tmp_path / "s.zarr", image, label)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert {k: v.dtype for k, v in group.arrays()} == {"image": np.float16, "label": np.uint8}
    np.testing.assert_array_equal(group["image"][:], image.astype(np.float16))
    np.testing.assert_array_equal(group["label"][:], label)
    assert group["image"].metadata.zarr_format == 3
    assert group["image"].metadata.dimension_names == ("x", "y", "z")
    assert os.listdir(tmp_path) == ["s.zarr"]  # noqa: PTH208 - hidden names too


@pytest.mark.parametrize("name", ["a[1]b", "a*b?", "50% of #1 ä", "a\\b"])
def test_a_store_may_have_any_name_that_its_library_takes(name: str, tmp_path: Path) -> None:
    image, label = blob(1)
    try:
        folder = local_folder(str(tmp_path / name))
    except InputError as e:
        assert "\\" in name and str(tmp_path / name) in str(e) and not list(tmp_path.iterdir())
        return
    write_subject(folder / "subjects" / "s.zarr", image, label)
    np.testing.assert_array_equal(zarr.open_group(folder / "subjects" / "s.zarr", mode="r")["label"][:], label)
    assert np.array_equal(open_array(folder / "subjects" / "s.zarr", "label").read().result(), label)
    assert "\\" not in name and [p.name for p in tmp_path.iterdir()] == [name]


def test_writing_again_replaces_the_subject_whole(tmp_path: Path) -> None:
    write_subject(tmp_path / "s.zarr", np.ones((130, 8, 8)), np.ones((130, 8, 8)))
    write_subject(tmp_path / "s.zarr", np.zeros((4, 4, 4)), np.zeros((4, 4, 4)))
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert group["image"].shape == (4, 4, 4)
    assert not any("c/2" in str(p) for p in subject_files(tmp_path))


def test_store_lists_subjects_persons_and_grids(tiny_store: Store) -> None:
    assert tiny_store.subjects() == tuple(f"sub-{i}" for i in range(6))
    assert tiny_store.subjects("train") == ("sub-0", "sub-1", "sub-2", "sub-3")
    assert tiny_store.subjects("test") == ("sub-4", "sub-5")
    assert tiny_store.persons["sub-2"] == "person-2"
    assert tiny_store.grid("sub-1").shape == (SIDE,) * 3
    assert tiny_store.spec.name == "tiny"


def test_a_store_may_be_named_from_the_folder_beside_it(tiny_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = tiny_store.folder.parent / "beside"
    beside.mkdir()
    monkeypatch.chdir(beside)
    named = Store(Path("..") / tiny_store.folder.name)
    np.testing.assert_array_equal(named.image("sub-0"), tiny_store.image("sub-0"))
    write_subject(Path("../new.zarr"), tiny_store.image("sub-0"), tiny_store.label("sub-0"))
    assert zarr.open_group(tiny_store.folder.parent / "new.zarr", mode="r")["image"].shape == (SIDE,) * 3


def test_boxes_read_as_crops_of_the_whole(tiny_store: Store) -> None:
    image, label = tiny_store.image("sub-1"), tiny_store.label("sub-1")
    np.testing.assert_array_equal(image, blob(1)[0].astype(np.float16))
    np.testing.assert_array_equal(label, blob(1)[1])
    rng = np.random.default_rng(0)
    for _ in range(30):
        box = Box(tuple(map(int, rng.integers(-20, 20, 3))), tuple(map(int, rng.integers(1, 20, 3))))  # type: ignore[arg-type]
        np.testing.assert_array_equal(tiny_store.image("sub-1", box), crop_or_pad(image, box))
        np.testing.assert_array_equal(tiny_store.label("sub-1", box), crop_or_pad(label, box, "constant"))


def test_a_store_travels_to_another_process(tiny_store: Store) -> None:
    tiny_store.image("sub-0")
    copied = pickle.loads(pickle.dumps(tiny_store))
    np.testing.assert_array_equal(copied.image("sub-0"), tiny_store.image("sub-0"))


def test_no_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json.*tlseg prepare"):
        Store(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"format": 99}', '{"format": 1}', "\x00"])
def test_a_damaged_manifest_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json") as e:
        Store(tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("damage", ["flip", "truncate", "a chunk is gone", "the description is gone"])
def test_a_damaged_array_is_one_sentence(damage: str, make_store: MakeStore) -> None:
    store = make_store(train=1, test=0)
    chunk = store.folder / "subjects" / "sub-0.zarr" / "image" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        chunk.write_bytes(bytes(content))
    elif damage == "truncate":
        chunk.write_bytes(bytes(content[: len(content) // 2]))
    elif damage == "a chunk is gone":  # a fault, and not zeros
        chunk.unlink()
    else:
        (store.folder / "subjects" / "sub-0.zarr" / "image" / "zarr.json").unlink()
    with pytest.raises(InputError, match=r"sub-0\.zarr is missing or damaged.*run prepare again"):
        store.image("sub-0")
    store.label("sub-0")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, None, "é"]})
    assert json.loads(path.read_text()) == {"b": [1, None, "é"]}
    before = path.read_bytes()
    for bad in (float("nan"), object(), copy):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, {"first": 1, "bad": bad})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_image_that_cannot_be_written_keeps_the_old_one(tmp_path: Path) -> None:
    image, label = blob(0)
    write_subject(tmp_path / "s.zarr", image, label)
    wrong: Any = np.array([[["not a number"]]])
    with pytest.raises(ValueError, match="could not convert"):
        write_subject(tmp_path / "s.zarr", wrong, label)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "s.zarr", mode="r")["label"][:], label)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.fixture
def small_disk(tmp_path: Path, mount: Mount) -> Path:
    """A file system of 1 MB of its own."""
    mount(tmp_path / "disk", 0, "size=1m")
    return tmp_path / "disk"


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    image, label = blob(0)
    write_subject(small_disk / "kept.zarr", image, label)
    write_json(small_disk / "kept.json", {"a": 1})
    before = {p: p.read_bytes() for p in subject_files(small_disk)}
    noise = np.random.default_rng(0).normal(size=(128, 128, 64))  # 2 MB, and noise does not shrink
    for name in ("new.zarr", "kept.zarr"):
        with pytest.raises((OSError, ValueError, RuntimeError), match="No space left on device"):
            write_subject(small_disk / name, noise, np.zeros(noise.shape))
        assert {p: p.read_bytes() for p in subject_files(small_disk)} == before
    with pytest.raises(OSError, match="No space left") as e:
        write_json(small_disk / "kept.json", {"a": "x" * 2_000_000})
    assert e.value.errno == errno.ENOSPC
    assert {p: p.read_bytes() for p in subject_files(small_disk)} == before
    assert sorted(p.name for p in small_disk.iterdir()) == ["kept.json", "kept.zarr"]
