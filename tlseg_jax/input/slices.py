"""Store -> an endless, seeded, exactly resumable stream of batches of slices (grain)."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.input.sampling import Sampling
from tlseg_jax.input.stream import InputSettings, stream
from tlseg_jax.preprocess.store.slice_store import Sample, SliceStore
from tlseg_jax.runtime.errors import InputError

Regions = Mapping[str, NDArray[np.bool_]]
"""Volume -> (samples, x, y): where a loss that is restricted to a region counts."""


def sampling_order(bits: Sequence[int], target: int, sampling: Sampling, where: str) -> NDArray[np.intp]:
    """Which samples an epoch goes through, before it is shuffled.

    "balanced" takes the samples with and without the target by turns: those of the larger kind once,
    those of the smaller kind over and over, equally often to within one.

    Args:
      bits: the structures that each sample shows.
      target: number of the target structure.

    Returns:
      Indices into the samples.

    Raises:
      InputError: balanced sampling of samples that all show the target, or that none shows.
    """
    if sampling == "all":
        return np.arange(len(bits))
    shows = (np.array(bits) >> target & 1).astype(bool)
    with_target, without = np.flatnonzero(shows), np.flatnonzero(~shows)
    if not (with_target.size and without.size):
        kind = "all" if with_target.size else "none"
        raise InputError(
            f"`sampling=balanced` needs slices with and without the target, and {kind} of the {len(bits)} training "
            f"slices of {where} show it: use `sampling=all`."
        )
    pairs = range(max(with_target.size, without.size))
    return np.array([i for k in pairs for i in (with_target[k % with_target.size], without[k % without.size])])


@dataclasses.dataclass(frozen=True)
class _PlaceSlice(grain.transforms.Map):
    """Place in the epoch's order -> which sample, and whose."""

    order: NDArray[np.intp]
    owners: NDArray[np.int32]

    def map(self, element: Any) -> dict[str, Any]:
        sample = self.order[int(element)]
        return {"index": self.owners[sample], "sample": np.int32(sample)}


@dataclasses.dataclass(frozen=True)
class _ReadSlice(grain.transforms.Map):
    """Which sample -> slice, label and, where there is one, region."""

    store: SliceStore
    samples: tuple[Sample, ...]
    starts: Mapping[str, int]
    channels: int
    regions: Regions | None

    def map(self, element: Any) -> dict[str, Any]:
        i = int(element["sample"])
        sample = self.samples[i]
        out = {
            "image": self.store.image(sample.subject, sample.position, self.channels),
            "label": self.store.label(sample.subject, sample.position),
            "index": element["index"],
        }
        if self.store.partial:
            out["marked"] = self.store.marks(sample.subject)
        if self.regions is not None:
            out["region"] = self.regions[sample.subject][i - self.starts[sample.subject]]
        return out


def make_slice_batches(
    store: SliceStore,
    subjects: Sequence[str],
    settings: InputSettings,
    regions: Regions | None = None,
    *,
    read: bool = True,
) -> grain.DatasetIterator:
    """An endless iterator of batches; with `sampling` "all" each slice comes once an epoch, reshuffled every epoch.

    The position is `iterator.get_state()`, and `set_state` goes on from there exactly.

    Args:
      regions: for a loss that is restricted to a region.
      read: whether to read the slices; False tells which they are, the same slices in the same order.

    Returns:
      Iterator of {"image": (batch, x, y, channels) float16, "label": (batch, x, y) uint8 codes,
      "index": (batch,) int32 into `subjects`, "marked" as `patches.make_batches` has it, and with
      regions "region": (batch, x, y) bool}; without reading, of
      {"index", "sample": (batch,) int32 into `store.samples(subjects)`}.

    Raises:
      InputError: the slices cannot be balanced, or the processes cannot share a batch evenly.
    """
    samples = store.samples(subjects)
    order = sampling_order(
        [s.bits for s in samples], len(store.spec.structures) - 1, settings.sampling, store.spec.name
    )
    counts = [len(store.samples([s])) for s in subjects]
    starts = dict(zip(subjects, itertools.accumulate(counts, initial=0), strict=False))
    owners = np.repeat(np.arange(len(subjects), dtype=np.int32), counts)
    return stream(
        len(order),
        _PlaceSlice(order, owners),
        _ReadSlice(store, samples, starts, settings.channels, regions) if read else None,
        settings,
    )
