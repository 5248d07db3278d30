"""Which slices of a volume are samples (Wang & Tang 2020, section 3.2.1), and which volumes are used."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlseg_jax.datasets.spec import DatasetSpec


def choose_slices(shows: Sequence[bool], with_structure: int, without_structure: int) -> tuple[int, ...]:
    """The slices that become samples, upwards.

    Those with a structure are evenly spaced over all that show one, first and last among them. Those without
    are the nearest to any slice that shows one ("the adjacent 20"): by distance, below before above.

    Args:
      shows: for each slice, from the feet up, whether any structure is in it.
      with_structure: how many of those that show one; 0 takes every slice of the volume.
      without_structure: how many of those that show none.
    """
    if with_structure == 0:
        return tuple(range(len(shows)))
    present = np.flatnonzero(shows)
    if not len(present):
        return ()
    absent = np.flatnonzero(~np.asarray(shows, bool))
    count = min(with_structure, len(present))
    # One slice alone comes from the middle, as the ends of an organ show little of it.
    at = np.round(np.linspace(0, len(present) - 1, count)) if count > 1 else [len(present) // 2]
    chosen = present[np.asarray(at, int)].tolist()
    distance = [int(np.abs(present - z).min()) for z in absent]
    nearest = sorted(zip(distance, absent.tolist(), strict=True))[:without_structure]
    return tuple(sorted([*chosen, *(z for _, z in nearest)]))


def fewer_than_asked(chosen: Sequence[int], shows: Sequence[bool], with_structure: int, without_structure: int) -> str:
    """What a volume lacks of the slices asked for, in words; empty where it lacks none."""
    if with_structure == 0:
        return ""
    has = sum(bool(shows[z]) for z in chosen)
    lacks = []
    if has < with_structure:
        lacks.append(f"{has} slice(s) with a structure and {with_structure} were asked for")
    if len(chosen) - has < without_structure:
        lacks.append(f"{len(chosen) - has} slice(s) without one and {without_structure} were asked for")
    return " and ".join(lacks)


def with_neighbours(chosen: Sequence[int], depth: int, neighbours: int) -> tuple[int, ...]:
    """The chosen slices and `neighbours` on each side of each, upwards, within the volume."""
    return tuple(sorted({z + k for z in chosen for k in range(-neighbours, neighbours + 1) if 0 <= z + k < depth}))


def volumes_for(slices: int, have: int, volumes: int, spec: DatasetSpec, workers: int) -> int:
    """How many volumes to read next for that many more slices: as few as can do, in whole rounds of the pool."""
    if spec.planes.with_structure:
        return math.ceil(slices / (spec.planes.with_structure + spec.planes.without_structure))
    return max(math.ceil(slices * volumes / have), 1) if have else workers


def cap(
    subjects: Sequence[str], records: dict[str, dict[str, Any]], failed: Mapping[str, str], max_slices: int
) -> tuple[list[str], list[str], dict[str, str]]:
    """The volumes that are used, in order, the last one cut to `max_slices` in all; those that are not; those excluded.

    What comes after the last slice is not needed, whether or not it was tried: that depends on processes and shards.
    """
    order: list[str] = []
    excluded: dict[str, str] = {}
    total = 0
    for s in subjects:
        if max_slices and total >= max_slices:
            break
        if s in failed:
            excluded[s] = failed[s]
        if s not in records:
            continue
        if max_slices and total + len(records[s]["samples"]) > max_slices:
            records[s] = _first_samples(records[s], max_slices - total)
        total += len(records[s]["samples"])
        order.append(s)
    used = set(order)
    return order, [s for s in subjects if s not in used and s not in excluded], excluded


def _first_samples(record: dict[str, Any], count: int) -> dict[str, Any]:
    """The record with its first `count` samples alone; the arrays keep what they hold."""
    pixels = {s: n[:count] for s, n in record["details"]["label_pixels"].items()}
    voxels = {s: n[:count] for s, n in record["label_voxels"].items()}
    return record | {
        "samples": record["samples"][:count],
        "bits": record["bits"][:count],
        "label_voxels": voxels,
        "details": record["details"] | {"label_pixels": pixels},
    }
