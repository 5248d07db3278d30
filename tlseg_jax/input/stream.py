"""The stream that patches and slices share: endless, seeded, exactly resumable (grain)."""

import dataclasses
import functools
from typing import Any

import grain
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.input.sampling import Sampling
from tlseg_jax.runtime.errors import InputError

EPOCHS = 1 << 40
"""Endless in practice; grain's own endless repeat overflows with batches of one."""


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How patches or slices are read.

    Attributes:
      batch_size: samples a batch, over all processes of the run.
      seed: of the order and of random patch positions.
      channels: slices a sample: itself and its neighbours.
      sampling: of slices "all" shows each once an epoch, and "balanced" draws those that show the target as often as
        those that do not, as section 4.2 of the liver report suggests. Of patches at random places "all" draws places
        evenly, and "balanced" centres every second patch, as it falls, on a voxel that shows a structure, drawn evenly
        from those of its scan.
      threads: that read ahead in this process.
      workers: processes that read ahead; 0 reads in this process only.
      process: which of the processes of the run this is, from 0; it reads its rows of every batch (see `stream`).
    """

    batch_size: int = 2
    seed: int = 0
    channels: int = 1
    sampling: Sampling = "all"
    threads: int = 2
    workers: int = 0
    process: int = 0
    processes: int = 1


@functools.lru_cache(maxsize=64)
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclasses.dataclass(frozen=True)
class _Shuffle(grain.transforms.Map):
    """Place in the endless stream -> number of the element: each once an epoch, in another order every epoch.

    Not grain's own shuffle, which takes 3 ms of a core for each element of a small data set (it walks a
    permutation of at least 2**16 numbers until it meets one below `count`): six times as long as reading the patch.
    """

    count: int
    seed: int

    def map(self, element: Any) -> int:
        epoch, number = divmod(int(element), self.count)
        return int(_permutation(self.count, self.seed, epoch)[number])


def stream(
    count: int,
    pick: grain.transforms.Map | grain.transforms.RandomMap,
    read: grain.transforms.Map | None,
    settings: InputSettings,
) -> grain.DatasetIterator:
    """Batches of `read` of `pick` of the numbers 0 to `count` - 1, each once an epoch, reshuffled every epoch.

    The position is `iterator.get_state()`, and `set_state` goes on from there exactly. The stream of picks
    has the order, the draws and the positions of the stream that reads: either goes on where the other was.

    Of several processes each reads its rows of every batch, process p of P the p-th P-th of them: their batches one
    behind the other are the batches of a single process, draws included, and a position is the same for all of them
    and for any number.

    Args:
      count: elements of an epoch.
      pick: from a number to where its sample is: a dict of small arrays.
      read: from a pick to the sample, a dict of arrays; None gives the picks.
      settings: batch size (a batch may hold the end of one epoch and the beginning of the next), seed, threads and
        processes.

    Raises:
      InputError: the processes cannot share a batch evenly.
    """
    batch_size, processes = settings.batch_size, settings.processes
    if batch_size % processes:
        raise InputError(
            f"A batch of {batch_size} cannot be shared evenly by {processes} processes: "
            f"give a `batch_size` that {processes} divides."
        )
    numbers = grain.MapDataset.range(count * EPOCHS).seed(settings.seed).map(_Shuffle(count, settings.seed))
    elements = numbers.random_map(pick) if isinstance(pick, grain.transforms.RandomMap) else numbers.map(pick)
    if read is not None:
        elements = elements.map(read)
    # In slices of a batch, of which each process takes every P-th: only those are read.
    parts = elements.batch(batch_size // processes)
    if processes > 1:
        parts = parts[settings.process :: processes]
    dataset = parts.to_iter_dataset(grain.ReadOptions(num_threads=settings.threads, prefetch_buffer_size=8))
    if settings.workers:
        dataset = dataset.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=settings.workers))
    return iter(dataset)
