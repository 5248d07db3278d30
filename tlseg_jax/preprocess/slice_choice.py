"""Which slices of a volume are samples (Wang & Tang 2020, section 3.2.1)."""

from collections.abc import Sequence

import numpy as np


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
