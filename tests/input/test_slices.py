"""The stream of slices: every one once an epoch, balanced where asked, each with its neighbours and region."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.slice_runs import small_store
from tlseg_jax.input.slices import Regions, make_slice_batches, sampling_order
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError

PLANES = 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    return small_store(tmp_path_factory.mktemp("slices") / "store", PLANES, train=3, test=1)


def batches(
    store: SliceStore, count: int, batch_size: int = 4, regions: Regions | None = None, **settings: Any
) -> list[dict[str, Any]]:
    it = make_slice_batches(store, store.subjects("train"), InputSettings(batch_size, **settings), regions)
    return [next(it) for _ in range(count)]


def key(batch: dict[str, Any], i: int) -> tuple[int, bytes]:
    return int(batch["index"][i]), batch["image"][i].tobytes()


def shown(store: SliceStore, count: int, batch_size: int = 4, **settings: Any) -> list[tuple[int, bytes]]:
    """Each sample by its volume and its bytes; noise makes every slice another."""
    return [key(b, i) for b in batches(store, count, batch_size, **settings) for i in range(len(b["index"]))]


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_every_slice_once_an_epoch_in_a_new_order(batch_size: int, store: SliceStore) -> None:
    count = 3 * PLANES
    seen = shown(store, 4 * count // batch_size, batch_size)
    epochs = [seen[i : i + count] for i in range(0, 4 * count, count)]
    expected = {(i, store.image(s, p).tobytes()) for i, s in enumerate(store.subjects("train")) for p in range(PLANES)}
    assert len(expected) == count
    assert all(set(e) == expected and len(e) == count for e in epochs)
    assert len({tuple(e) for e in epochs}) == 4


def test_only_samples_are_shown_and_not_mere_neighbours(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s", train=2, test=0, samples=(1, 2, 5))
    seen = shown(store, 3, 6)
    expected = {(i, store.image(s, p).tobytes()) for i, s in enumerate(store.subjects("train")) for p in (1, 2, 5)}
    assert set(seen) == expected
    assert collections.Counter(seen) == dict.fromkeys(expected, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_label_and_neighbours_are_those_of_the_slice(channels: int, store: SliceStore) -> None:
    subjects = store.subjects("train")
    for batch in batches(store, 6, channels=channels):
        for i, s in enumerate(batch["index"]):
            whole, labels = store.volume_image(subjects[s])[..., 0], store.codes(subjects[s])
            (at,) = [p for p in range(PLANES) if np.array_equal(whole[p], batch["image"][i, ..., channels // 2])]
            np.testing.assert_array_equal(batch["label"][i], labels[at])
            k = channels // 2
            padded = np.pad(whole, ((k, k), (0, 0), (0, 0)), mode="edge")
            for c in range(channels):
                np.testing.assert_array_equal(batch["image"][i, ..., c], padded[at + c])


@pytest.mark.parametrize("sampling", ["all", "balanced"])
def test_regions_go_with_their_slices(sampling: Any, store: SliceStore) -> None:
    """A region that is written from the slice itself comes back beside that slice."""
    regions = {s: store.volume_image(s)[..., 0] > 0.2 for s in store.subjects("train")}
    for batch in batches(store, 8, regions=regions, sampling=sampling):
        assert batch["region"].dtype == np.bool_
        np.testing.assert_array_equal(batch["region"], batch["image"][..., 0] > 0.2)


def test_regions_where_only_some_planes_are_samples(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s", samples=(0, 3, 6))
    regions = {s: store.volume_image(s)[..., 0] > 0.2 for s in store.subjects("train")}
    for batch in batches(store, 4, regions=regions):
        np.testing.assert_array_equal(batch["region"], batch["image"][..., 0] > 0.2)


# Bits: liver 1, tumour 2; the target is the last structure.
BITS = [1, 3, 1, 0, 3, 1, 1, 0, 1, 3, 1]


def test_balanced_halves_an_epoch_exactly() -> None:
    order = sampling_order(BITS, 1, "balanced", "x")
    with_target = [i for i in order if BITS[i] & 2]
    without = [i for i in order if not BITS[i] & 2]
    assert len(with_target) == len(without) == 8
    assert sorted(without) == [0, 2, 3, 5, 6, 7, 8, 10]  # the commoner kind: each once
    counts = collections.Counter(with_target)
    assert set(counts) == {1, 4, 9}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_balanced_works_the_other_way_round_too() -> None:
    bits = [2, 2, 2, 0, 2, 0, 2]
    counts = collections.Counter(int(i) for i in sampling_order(bits, 1, "balanced", "x"))
    assert [counts[i] for i in (0, 1, 2, 4, 6)] == [1] * 5
    assert sorted((counts[3], counts[5])) == [2, 3]


@pytest.mark.parametrize(("bits", "kind"), [([0, 1, 1], "none"), ([2, 3], "all")])
def test_what_cannot_be_balanced_is_one_sentence(bits: list[int], kind: str) -> None:
    with pytest.raises(InputError) as e:
        sampling_order(bits, 1, "balanced", "liver_ct")
    assert f"{kind} of the {len(bits)} training slices of liver_ct show it: use `sampling=all`" in str(e.value)
    assert "\n" not in str(e.value)


def test_balanced_batches_come_half_and_half(store: SliceStore) -> None:
    """Over whole epochs: 5 slices of each volume's 7 show tumour, so 15 and 15 make an epoch."""
    has = [int(s.bits >> 1 & 1) for s in store.samples(store.subjects("train"))]
    assert sum(has) == 15
    got = batches(store, 20, batch_size=3, sampling="balanced")
    tumour = [bool((label & 2).any()) for b in got for label in b["label"]]
    assert sum(tumour[:30]) == sum(tumour[30:]) == 15
    without = collections.Counter(key(b, i) for b in got for i in range(3) if not (b["label"][i] & 2).any())
    assert len(without) == 6
    assert set(without.values()) <= {4, 5, 6}
