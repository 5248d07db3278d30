"""Fixtures shared by the tests: a tiny prepared data set, written by hand."""

import csv
import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.geometry import Box
from tlseg_jax.models.networks import variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store, write_subject
from tlseg_jax.runtime.files import write_json
from tlseg_jax.runtime.messages import shown

MakeStore = Callable[..., Store]
Mount = Callable[[Path, int, str], None]
READ_ONLY, REMOUNT, LAZILY = 1, 32, 2
"""Flags of Linux's `mount` and `umount2`."""
SIDE = 16


def blob(seed: int, side: int = SIDE) -> tuple[NDArray[Any], NDArray[Any]]:
    """A bright ellipsoid off centre in noise: an image that a small network can learn."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    centre = side / 2 + rng.uniform(-2, 2, 3)
    label = (((at - centre) / rng.uniform(side / 6, side / 4, 3)) ** 2).sum(-1) < 1
    image = rng.normal(0, 0.3, label.shape) + 2.0 * label
    return (image - image.mean()) / image.std(), label.astype(np.uint8)


def write_store(
    folder: Path,
    train: int = 4,
    test: int = 2,
    spec: Mapping[str, Any] | None = None,
    poison: str | None = None,
    first: int = 0,
) -> Store:
    """A store of blobs: sub-0.. train, then test; `poison` names a subject whose image holds a NaN."""
    values = DatasetSpec(
        "tiny",
        ("blob",),
        VolumeGrid("native", (SIDE,) * 3, (1.0, 1.0, 1.0), (SIDE,) * 3, train_count=train, test_count=test),
        "tiny",
    ).to_dict() | dict(spec or {})
    records = {}
    for i in range(first, first + train + test):
        name = f"sub-{i}"
        image, label = blob(i)
        if name == poison:
            image[3, 3, 3] = np.nan
        write_subject(folder / "subjects" / f"{name}.zarr", image, label)
        records[name] = {
            "split": "train" if i < first + train else "test",
            "person": f"person-{i}",
            "shape": [SIDE] * 3,
            "affine": np.eye(4).tolist(),
            "space_to_world": np.eye(4).tolist(),
            "scan_shape": [SIDE] * 3,
            "scan_affine": np.eye(4).tolist(),
            "label_ml": dict.fromkeys(values["structures"], float(label.sum()) / 1000),
            "fingerprint": f"f{i}",
            "image_sha256": f"sha{i}",
        }
    manifest = {
        "format": 1,
        "spec": values,
        "parameters": {"spacing": 1.0},
        "patch_box": None if values["random_patch"] else Box((0, 0, 0), (SIDE,) * 3).to_dict(),
        "subjects": records,
    }
    write_json(folder / "manifest.json", manifest)
    return Store(folder)


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table that we wrote."""
    with path.open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests that build the same program share one compilation, with the commands that they call, out of the user's."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power: a file is read back from memory whether or not it has reached the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where users run the library: it refuses an array of another shape itself, or nothing does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def quick_compile() -> Iterator[None]:
    """For tests whose programs are tiny: compiling them well takes longer than running them badly."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the library tells in this test, in order."""
    lines: list[str] = []
    with shown(lines.append):
        yield lines


@pytest.fixture
def mount() -> Iterator[Mount]:
    """What mounts a file system in memory on a folder, or mounts it anew in another way."""
    libc = ctypes.CDLL(None, use_errno=True)
    places: list[Path] = []

    def mount(place: Path, flags: int, options: str) -> None:
        place.mkdir(parents=True, exist_ok=True)
        if libc.mount(b"tmpfs", bytes(place), b"tmpfs", flags, options.encode()):
            reason = os.strerror(ctypes.get_errno())
            assert not places, reason
            pytest.skip(f"a file system cannot be mounted here: {reason}")
        if not flags & REMOUNT:
            places.append(place)

    try:
        yield mount
    finally:
        for place in reversed(places):
            libc.umount2(bytes(place), LAZILY)


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """A function that writes a store below this test's folder."""

    def make(name: str = "store", **given: Any) -> Store:
        return write_store(tmp_path / name, **given)

    return make


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four training and two test subjects of 16 voxels a side; read only."""
    return write_store(tmp_path_factory.mktemp("tiny") / "store")


def he_variables(config: UNetConfig, seed: int = 0) -> dict[str, Any]:
    """He-normal parameters drawn by NumPy: the network's own start costs seconds of compiling."""
    rng = np.random.default_rng(seed)
    shapes = variable_shapes(config)

    def draw(path: Any, leaf: Any) -> NDArray[Any]:
        if path[-1].key == "kernel":
            return (rng.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def tiny_network() -> UNetConfig:
    """Two poolings, four channels: compiles in about a second."""
    return UNetConfig("tiny", ((4,), (4,)), (4,), ((4,), (4,)), (), "concatenate")
