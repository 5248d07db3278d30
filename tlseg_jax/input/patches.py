"""Store -> an endless, seeded, exactly resumable stream of batches of patches (grain)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import Shape3
from tlseg_jax.geometry import Box
from tlseg_jax.input.stream import InputSettings, stream
from tlseg_jax.input.synthesis.maps import Maps
from tlseg_jax.input.synthesis.mixing import Mixed
from tlseg_jax.preprocess.codes import anywhere
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError

SHOWN = 4096
"""Voxels a subject that "balanced" patches may be centred on: enough that two are seldom the same."""


def random_box(shape: Shape3, size: Shape3, rng: np.random.Generator) -> Box:
    """A box of `size` at a uniformly random place inside `shape`; centred on a side that is too short."""
    start = [int(rng.integers(0, n - s + 1)) if n >= s else (n - s) // 2 for n, s in zip(shape, size, strict=True)]
    return Box((start[0], start[1], start[2]), size)


@dataclasses.dataclass(frozen=True)
class _PlacePatch(grain.transforms.RandomMap):
    """Subject's index -> where its patch begins: the fixed box, or a random one of `size` where `box` is None.

    Of the subjects' voxels in `shown`, where there are any, every second patch has one in its middle.
    """

    store: Store
    subjects: tuple[str, ...]
    box: Box | None
    size: Shape3
    shown: tuple[NDArray[np.int32], ...] | None = None
    mixed: Mixed | None = None

    def random_map(self, element: Any, rng: np.random.Generator) -> dict[str, Any]:
        i = int(element)
        box = self.box or random_box(self.store.grid(self.subjects[i]).shape, self.size, rng)
        if self.shown is not None and len(self.shown[i]) and rng.random() < 0.5:
            middle = self.shown[i][rng.integers(len(self.shown[i]))]
            shape = self.store.grid(self.subjects[i]).shape
            # Inside the volume, as every other patch is; a side that is too short stays where it is.
            start = [
                min(max(int(m) - s // 2, 0), n - s) if n >= s else (n - s) // 2
                for m, s, n in zip(middle, self.size, shape, strict=True)
            ]
            box = Box((start[0], start[1], start[2]), self.size)
        place = {"index": np.int32(element), "start": np.array(box.start, np.int32)}
        if self.mixed is None:
            return place
        # Last, so that the other samples are those of a run that mixes nothing.
        drawn, number = rng.random() < self.mixed.share, rng.integers(len(self.mixed.subjects))
        return place | {"drawn": np.bool_(drawn), "map": np.int32(number)}


@dataclasses.dataclass(frozen=True)
class _ReadPatch(grain.transforms.Map):
    """Where a patch is -> the patch, or the map that it is drawn from."""

    store: Store
    subjects: tuple[str, ...]
    size: Shape3
    maps: Maps | None
    mixed: Mixed | None = None

    def map(self, element: Any) -> dict[str, Any]:
        subject = self.subjects[int(element["index"])]
        x, y, z = element["start"].tolist()
        box = Box((x, y, z), self.size)
        seen = self.maps.sample(subject, box) if self.maps else {"image": self.store.image(subject, box)}
        return {
            **seen,
            "label": self.store.label(subject, box),
            "index": element["index"],
            **({"marked": self.store.marks(subject)} if self.store.partial else {}),
            **({"drawn": element["drawn"]} if self.mixed else {}),
            **(self.mixed.sample(int(element["map"]), bool(element["drawn"])) if self.mixed else {}),
        }


def _shown(store: Store, subjects: Sequence[str], seed: int) -> tuple[NDArray[np.int32], ...]:
    """For each subject some voxels (voxels, 3) that show a structure, drawn evenly."""
    found = []
    for i, subject in enumerate(subjects):
        at = np.argwhere(anywhere(store.label(subject))).astype(np.int32)
        some = np.random.default_rng((seed, i)).permutation(len(at))[:SHOWN]
        found.append(at[some])
    return tuple(found)


def training_box(store: Store) -> Box | None:
    """The fixed patch of a store; None where its patches are random.

    Raises:
      InputError: the store has no patch, since none of its subjects trains.
    """
    if store.spec.volumes.random_patch:
        return None
    if store.patch_box is None:
        raise InputError(
            f"{store.where} holds no training subjects, so it has no patch to train on: "
            "prepare it with `test_fraction` below 1."
        )
    return store.patch_box


def make_batches(
    store: Store,
    subjects: Sequence[str],
    box: Box | None,
    settings: InputSettings,
    *,
    maps: Maps | None = None,
    mixed: Mixed | None = None,
    read: bool = True,
) -> grain.DatasetIterator:
    """An endless iterator of batches, each subject once an epoch, reshuffled every epoch.

    The position is `iterator.get_state()`, and `set_state` goes on from there exactly.

    Args:
      box: the patch; None draws a random one of `store.spec.volumes.patch_size` each time.
      maps: those of the store, where it holds no scans.
      mixed: what takes the place of some samples; None: of none.
      read: whether to read the patches; False tells where they are, of the same patches in the same order.

    Returns:
      Iterator of {"image": (batch, x, y, z) float16, "label": (batch, x, y, z) uint8,
      "index": (batch,) int32 into `subjects`} and, where some mark some structures only, "marked": (batch, structures)
      uint8; of label maps "image" is what `draw.draw_batch` takes in its place, "classes" and "shares"; of `mixed`
      these are there too, and "drawn": (batch,) bool, whose samples they are for;
      without reading, of {"index", "start": (batch, 3) int32,
      each patch's first voxel, negative where it reaches outside} and, of `mixed`, "drawn" and "map": (batch,) int32.

    Raises:
      InputError: the processes cannot share a batch evenly, or a fixed patch is to be balanced.
    """
    balanced = settings.sampling == "balanced"
    if balanced and box is not None:
        raise InputError(
            f"`sampling=balanced` chooses between places, and every patch of {store.where} is one fixed box: "
            "use `sampling=all`."
        )
    names, size = tuple(subjects), box.size if box else store.spec.volumes.patch_size
    return stream(
        len(names),
        _PlacePatch(store, names, box, size, _shown(store, names, settings.seed) if balanced else None, mixed),
        _ReadPatch(store, names, size, maps, mixed) if read else None,
        settings,
    )
