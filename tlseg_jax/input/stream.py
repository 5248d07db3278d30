"""The stream that patches and slices share: endless, seeded, exactly resumable (grain)."""

import grain

EPOCHS = 1 << 40
"""Endless in practice; grain's own endless repeat overflows with batches of one."""


def stream(
    count: int,
    read: grain.transforms.Map | grain.transforms.RandomMap,
    *,
    batch_size: int,
    seed: int,
    threads: int,
    workers: int,
) -> grain.DatasetIterator:
    """Batches of `read` of the numbers 0 to `count` - 1, each once an epoch, reshuffled every epoch.

    The position is `iterator.get_state()`, and `set_state` goes on from there exactly.

    Args:
      count: elements of an epoch.
      read: from a number to a dict of arrays.
      batch_size: elements a batch; a batch may hold the end of one epoch and the beginning of the next.
      seed: of the order and of what `read` draws.
      threads: that read ahead in this process.
      workers: processes that read ahead; 0 reads in this process only.
    """
    numbers = grain.MapDataset.range(count).seed(seed).shuffle().repeat(EPOCHS)
    elements = numbers.random_map(read) if isinstance(read, grain.transforms.RandomMap) else numbers.map(read)
    dataset = elements.batch(batch_size).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    )
    if workers:
        dataset = dataset.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=workers))
    return iter(dataset)
