"""The prepared data set on disk: a Zarr v3 group a subject (float16 image, uint8 label) and a manifest.

    STORE/hdt_c/manifest.json
    STORE/hdt_c/subjects/sub-01.zarr/image      (x, y, z) float16, z-scored
    STORE/hdt_c/subjects/sub-01.zarr/label      (x, y, z) uint8, codes of the structures (`preprocess.codes`)
    STORE/hdt_c/subjects/seg_01.zarr/classes    of a label map in place of an image: see `map_pipeline`

Any Zarr v3 reader opens it. Chunks carry crc32c checksums, so a flipped bit is found on reading.
"""

import functools
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tensorstore as ts
from jaxtyping import Float16, Shaped, UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.geometry import Box, Grid, crop_or_pad
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.elsewhere import Elsewhere
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import flush, write_json

FORMAT = 1
CHUNK = 64


def _array_spec(where: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **where,
        "driver": "zarr3",
        # Every chunk is written, zeros too, so that a chunk that went missing is a fault and not a zero.
        "store_data_equal_to_fill_value": True,
        "fill_missing_data_reads": False,
    }


def open_array(
    path: Path, name: str, context: ts.Context | None = None, place: Elsewhere | None = None
) -> ts.TensorStore:
    """One array of a subject's Zarr group, to read.

    Args:
      name: "image" or "label".
      context: where read chunks are cached.
      place: which knows where the arrays are; None: the command's.

    Raises:
      ValueError: it is missing or damaged.
    """
    where = (place or elsewhere.current()).arrays(path / name)
    return ts.open(_array_spec(where), open=True, read=True, context=context).result()


def write_arrays(
    path: Path, arrays: Mapping[str, tuple[NDArray[Any], str]], chunk: tuple[int, ...], axes: tuple[str, ...]
) -> None:
    """Write one subject's Zarr group, whole or not at all.

    Args:
      path: the group's folder, `....zarr`; replaced if it is there.
      arrays: name -> (values, name of the type to store them as).
      chunk: voxels of a chunk; cut to the array where that is smaller.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        for name, (volume, dtype) in arrays.items():
            sides = [min(c, n) for c, n in zip(chunk, volume.shape, strict=True)]
            array = ts.open(
                _array_spec(Elsewhere().arrays(beside / name))
                | {
                    # Flushed below, all files together: three times as fast as one by one.
                    "context": {"file_io_sync": False},
                    "metadata": {
                        "shape": list(volume.shape),
                        "data_type": dtype,
                        "dimension_names": list(axes),
                        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": sides}},
                        "codecs": [
                            {"name": "bytes", "configuration": {"endian": "little"}},
                            {"name": "zstd", "configuration": {"level": 3}},
                            {"name": "crc32c"},
                        ],
                    },
                },
                create=True,
            ).result()
            # One chunk after another: when the disk fills up, no other chunk is still on its way to
            # the folder that is about to be removed.
            for at in itertools.product(*(range(0, n, c) for n, c in zip(volume.shape, sides, strict=True))):
                part = tuple(slice(a, min(a + c, n)) for a, c, n in zip(at, sides, volume.shape, strict=True))
                array[part].write(volume[part].astype(dtype)).result()
        for file in beside.rglob("*"):
            flush(file)
        write_json(beside / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
        shutil.rmtree(path, ignore_errors=True)
        beside.replace(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_subject(path: Path, image: Shaped[np.ndarray, "x y z"], label: Shaped[np.ndarray, "x y z"]) -> None:
    """Write one scan's Zarr group: see `write_arrays`. The image is stored as float16, the label as uint8."""
    write_arrays(path, {"image": (image, "float16"), "label": (label, "uint8")}, (CHUNK,) * 3, ("x", "y", "z"))


def write_map(path: Path, classes: UInt8[np.ndarray, "i j k"], label: UInt8[np.ndarray, "x y z"]) -> None:
    """As `write_subject`, of a label map: with its classes, which may be finer, in place of an image."""
    write_arrays(path, {"classes": (classes, "uint8"), "label": (label, "uint8")}, (CHUNK,) * 3, ("x", "y", "z"))


class BaseStore:
    """A prepared data set of any kind, read only.

    Attributes:
      kind: "volumes", or "slices" for the 2D network.
      folder: the data set's folder, with its manifest.json.
      where: the same, as records and messages name it.
      patch_box: the fixed patch, in voxels of the grid; None of slices, and where no subject trains.
      ml: what a summary says of how the ml of its test sets are counted, beyond `results.IN_PERSON`.
    """

    kind: ClassVar[str]
    ml: ClassVar[Mapping[str, str]] = {}
    spec: DatasetSpec

    def __init__(self, folder: Path, manifest: dict[str, Any] | None = None) -> None:
        """Open `folder`, under another manifest than its own where one is given.

        Raises:
          InputError: there is no manifest, or not one of ours, or one of another kind of data set.
        """
        self.folder = folder
        self._place = elsewhere.current()  # another process that reads has been told nothing
        self.where = self._place.name(folder)
        self.manifest = manifest or read_manifest(folder)
        self.spec = spec_from_dict(self.manifest["spec"], f"{self.where}/manifest.json")
        kind = self.manifest.get("kind", "volumes")
        if kind != self.kind:
            raise InputError(
                f"{self.where} is a prepared data set of {kind} and {self.kind} are needed: name another data set, "
                f"or a network for {kind}."
            )
        box = self.manifest.get("patch_box")
        self.patch_box = Box.from_dict(box) if box else None
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": 1 << 30}})
        self._arrays: dict[tuple[str, str], ts.TensorStore] = {}

    def with_manifest(self, manifest: dict[str, Any]) -> Self:
        """The same arrays described otherwise, such as by another split."""
        return type(self)(self.folder, manifest)

    def subjects(self, split: str | None = None) -> tuple[str, ...]:
        """Names of the subjects of a split ("train", "test"), or of all, sorted."""
        records = self.manifest["subjects"]
        return tuple(sorted(s for s, r in records.items() if split is None or r["split"] == split))

    @property
    def persons(self) -> dict[str, str]:
        """Subject -> person."""
        return {s: r["person"] for s, r in self.manifest["subjects"].items()}

    def record(self, subject: str) -> dict[str, Any]:
        """What the manifest says of one subject."""
        return self.manifest["subjects"][subject]  # type: ignore[no-any-return]

    def marked(self, subject: str) -> tuple[str, ...]:
        """The structures that were looked for in this subject's label map."""
        return tuple(s for s in self.spec.structures if s in self.record(subject).get("marked", self.spec.structures))

    def marks(self, subject: str) -> NDArray[np.uint8]:
        """(structures,) 1 for each that was looked for in this subject's label map."""
        marked = self.marked(subject)
        return np.array([s in marked for s in self.spec.structures], np.uint8)

    @functools.cached_property  # asked for with every patch
    def partial(self) -> bool:
        """Whether some label maps mark some structures only, or say where nobody looked."""
        whole = all(self.marked(s) == self.spec.structures for s in self.subjects())
        return not whole or self.spec.unmarked_value is not None

    def scan_grid(self, subject: str) -> Grid:
        """The voxels of the scan's own file, voxel -> world RAS mm.

        Raises:
          InputError: the store does not hold them.
        """
        shape, affine = self._kept(subject, "scan_shape"), self._kept(subject, "scan_affine")
        return Grid(tuple(shape), np.array(affine, np.float64))

    def codes(self, subject: str) -> UInt8[np.ndarray, "x y z"]:
        """Codes of the structures (`preprocess.codes`), of a volume or of its samples (samples, x, y)."""
        raise NotImplementedError

    def mask(self, subject: str, structure: str) -> NDArray[np.bool_]:
        """Where one structure is; see `codes`."""
        return mask_of(self.codes(subject), self.spec.structures.index(structure), self.spec.exclusive)

    def _kept(self, subject: str, key: str) -> Any:
        r = self.record(subject)
        if key not in r:
            raise InputError(
                f"{self.where}/manifest.json lacks the '{key}' of {subject}, so that person's own ml and mm are "
                "not known: prepare the data set again, in another `store`."
            )
        return r[key]

    def _array(self, subject: str, name: str) -> ts.TensorStore:
        """A subject's array, opened once. Raises ValueError: it is missing or damaged."""
        key = (subject, name)
        if key not in self._arrays:
            self._arrays[key] = open_array(self._group(subject), name, self._context, self._place)
        return self._arrays[key]

    def _group(self, subject: str) -> Path:
        return self.folder / "subjects" / f"{subject}.zarr"

    def _damaged(self, subject: str, error: ValueError) -> InputError:
        """The sentence for an array that cannot be read."""
        group = self._group(subject)
        return InputError(
            self._place.fault(group, error)
            or f"{self._place.name(group)} is missing or damaged ({str(error).splitlines()[0][:200]}): remove that "
            "folder and run prepare again, which redoes this subject only."
        )


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared data set. Raises InputError: there is no way to where it is kept."""
    elsewhere.current().fetch(folder)
    return (folder / "manifest.json").exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared data set of any kind.

    Raises:
      InputError: there is none, or not one of ours.
    """
    where = elsewhere.current().name(folder)
    path = f"{where}/manifest.json"
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"There is no prepared data set in {where} (no manifest.json): run 'tlseg prepare' first, or check `store`."
        ) from None
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read ({e}): run 'prepare' again.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version: prepare the data set again.")
    for key in ("spec", "subjects"):
        if not isinstance(manifest.get(key), dict):
            raise InputError(f"{path} is damaged (no '{key}'): prepare the data set again.")
    return manifest


class Store(BaseStore):
    """A prepared data set of volumes, read only."""

    kind = "volumes"

    def subjects(self, split: str | None = None) -> tuple[str, ...]:
        """As of any store; of label maps none is for test: those of persons who are, elsewhere, take no part."""
        return () if split == "test" and self.map_factor else super().subjects(split)

    def grid(self, subject: str) -> Grid:
        """The voxel grid that this subject's arrays are on."""
        r = self.record(subject)
        return Grid(tuple(r["shape"]), np.array(r["affine"], np.float64))

    def person_grid(self, subject: str) -> Grid:
        """The same voxels where they lie in the person: its affine gives the world RAS mm of the scan.

        Millimetres of a person are measured on it: on `grid`, which may be a template's, every head is of one size.

        Raises:
          InputError: the store does not hold how the scan was registered.
        """
        grid = self.grid(subject)
        return Grid(grid.shape, np.array(self._kept(subject, "space_to_world"), np.float64) @ grid.affine)

    def label_ml(self, subject: str, structure: str) -> float:
        """A structure's volume in ml, counted in the label file that was prepared.

        Raises:
          InputError: the store does not hold it.
        """
        ml = self._kept(subject, "label_ml")
        return float(ml[structure] if isinstance(ml, dict) else ml)

    def _read(self, subject: str, name: str, box: Box | None) -> NDArray[Any]:
        try:
            array = self._array(subject, name)
            if box is None:
                return array.read().result()  # type: ignore[no-any-return]
            lo = [min(max(a, 0), n) for a, n in zip(box.start, array.shape, strict=True)]
            hi = [max(min(b, n), 0) for b, n in zip(box.stop, array.shape, strict=True)]
            if any(a >= b for a, b in zip(lo, hi, strict=True)):
                return np.zeros(box.size, array.dtype.numpy_dtype)
            part = array[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))].read().result()
        except ValueError as e:
            raise self._damaged(subject, e) from None
        moved = Box(tuple(a - b for a, b in zip(box.start, lo, strict=True)), box.size)  # type: ignore[arg-type]
        return crop_or_pad(part, moved, "constant" if name == "label" else "edge")

    @property
    def map_factor(self) -> tuple[int, int, int] | None:
        """Voxels of the label maps to one of the grid on each axis; None where there are scans."""
        factor = self.manifest.get("map_factor")
        return tuple(factor) if factor else None

    def check_scans(self) -> None:
        """Raise InputError where there are label maps alone."""
        if self.map_factor:
            raise InputError(
                f"{self.where} holds label maps and no scans (`from_labels`): pre-train on it, and name a data set of "
                "scans to fine-tune, validate, score or join."
            )

    def classes(self, subject: str, box: Box | None = None) -> UInt8[np.ndarray, "i j k"]:
        """A label map with all that it holds, as places in the record's "class_values".

        Args:
          box: in voxels of the map; one that reaches outside repeats the map's border.
        """
        return self._read(subject, "classes", box)

    def image(self, subject: str, box: Box | None = None) -> Float16[np.ndarray, "x y z"]:
        """A scan; a box reaching outside repeats the volume's border. Raises InputError: see `check_scans`."""
        self.check_scans()
        return self._read(subject, "image", box)

    def label(self, subject: str, box: Box | None = None) -> UInt8[np.ndarray, "x y z"]:
        """Codes of its structures (`preprocess.codes`); zero outside the volume."""
        return self._read(subject, "label", box)

    def codes(self, subject: str) -> UInt8[np.ndarray, "x y z"]:
        """Those of the whole scan."""
        return self.label(subject)
