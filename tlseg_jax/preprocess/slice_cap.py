"""Which volumes are read and which are used, where only so many slices are wanted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.slice_subject import first_samples


def volumes_for(slices: int, have: int, volumes: int, spec: DatasetSpec, workers: int) -> int:
    """How many volumes to read next for that many more slices: as few as can do, in whole rounds of the pool."""
    if spec.planes.with_structure:
        return math.ceil(slices / (spec.planes.with_structure + spec.planes.without_structure))
    return max(math.ceil(slices * volumes / have), 1) if have else workers


def cap(
    scans: Sequence[ScanFiles], records: dict[str, dict[str, Any]], failed: Mapping[str, str], max_slices: int
) -> tuple[list[str], list[str], dict[str, str]]:
    """The volumes that are used, in order, the last one cut to `max_slices` in all; those that are not; those excluded.

    What comes after the last slice is not needed, whether or not it was tried: that depends on processes and shards.
    """
    order: list[str] = []
    excluded: dict[str, str] = {}
    total = 0
    for files in scans:
        s = files.subject
        if max_slices and total >= max_slices:
            break
        if s in failed:
            excluded[s] = failed[s]
        if s not in records:
            continue
        if max_slices and total + len(records[s]["samples"]) > max_slices:
            records[s] = first_samples(records[s], max_slices - total)
        total += len(records[s]["samples"])
        order.append(s)
    used = set(order)
    return order, [f.subject for f in scans if f.subject not in used and f.subject not in excluded], excluded
