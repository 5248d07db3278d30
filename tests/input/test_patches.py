"""The stream of batches: every subject once an epoch, exactly resumable, the same however it is read."""

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SIDE, MakeStore
from tlseg_jax.geometry import Box, crop_or_pad
from tlseg_jax.input.patches import make_batches, random_box, training_box
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError

BOX = Box((2, 0, -3), (8, 16, 16))


def order(store: Store, batches: int, batch_size: int = 2, subjects: int = 6, **settings: Any) -> list[int]:
    it = make_batches(store, store.subjects()[:subjects], BOX, InputSettings(batch_size, **settings))
    return [int(i) for _ in range(batches) for i in next(it)["index"]]


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("batch_size", "subjects"), [(1, 6), (2, 6), (4, 6), (2, 5), (3, 2), (4, 1)])
def test_every_subject_once_an_epoch_in_a_new_order(batch_size: int, subjects: int, tiny_store: Store) -> None:
    seen = order(tiny_store, 12 * subjects // batch_size, batch_size, subjects)
    epochs = [tuple(seen[i : i + subjects]) for i in range(0, len(seen), subjects)]
    whole = [e for e in epochs if len(e) == subjects]
    assert len(whole) >= 11
    assert all(sorted(e) == list(range(subjects)) for e in whole)
    if subjects > 2:
        assert len(set(whole)) > len(whole) // 2
        firsts = collections.Counter(e[0] for e in whole)
        assert len(firsts) > 1


def test_the_seed_decides_the_order(tiny_store: Store) -> None:
    orders = {tuple(order(tiny_store, 6, seed=s)) for s in range(6)}
    assert len(orders) == 6
    assert order(tiny_store, 6, seed=3) == order(tiny_store, 6, seed=3)


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_the_order(threads: int, tiny_store: Store) -> None:
    assert order(tiny_store, 9, threads=threads) == order(tiny_store, 9)


def test_a_batch_holds_the_subjects_patches(tiny_store: Store) -> None:
    subjects = tiny_store.subjects()
    batch = next(make_batches(tiny_store, subjects, BOX, InputSettings(3)))
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((3, 8, 16, 16), "float16"),
        "label": ((3, 8, 16, 16), "uint8"),
        "index": ((3,), "int32"),
    }
    for i, image, label in zip(batch["index"], batch["image"], batch["label"], strict=True):
        np.testing.assert_array_equal(image, crop_or_pad(tiny_store.image(subjects[i]), BOX))
        np.testing.assert_array_equal(label, crop_or_pad(tiny_store.label(subjects[i]), BOX, "constant"))


@pytest.mark.parametrize("box", [BOX, None])
def test_resuming_is_exact_also_through_json(box: Box | None, make_store: MakeStore) -> None:
    store = make_store(spec={"random_patch": True, "patch_size": [8, 8, 8]})

    def start() -> Any:
        return make_batches(store, store.subjects("train"), box, InputSettings(seed=1))

    first = start()
    for _ in range(5):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    rest = [next(first) for _ in range(7)]
    second = start()
    second.set_state(state)
    assert all(same(a, next(second)) for a in rest)


def test_random_patches_differ_and_are_cut_from_the_volume(make_store: MakeStore) -> None:
    store = make_store(train=1, test=0, spec={"random_patch": True, "patch_size": [8, 8, 8]})
    assert training_box(store) is None
    it = make_batches(store, ("sub-0",), None, InputSettings(1))
    whole = store.image("sub-0")
    windows = np.lib.stride_tricks.sliding_window_view(whole, (8, 8, 8))
    starts = set()
    for _ in range(12):
        patch = next(it)["image"][0]
        at = np.argwhere(np.all(windows == patch, axis=(3, 4, 5)))
        assert len(at) == 1
        starts.add(tuple(map(int, at[0])))
    assert len(starts) > 8


def test_balanced_patches_have_a_structure_in_the_middle_half_of_the_time(make_store: MakeStore) -> None:
    """Of a structure of few voxels, which even places seldom meet; nearer to the border the patch stays inside."""
    store = make_store(train=2, test=0, spec={"random_patch": True, "patch_size": [8, 8, 8]})
    subjects = store.subjects()
    share = {}
    for sampling in ("all", "balanced"):
        settings = InputSettings(2, seed=4, sampling=sampling)
        it = make_batches(store, subjects, None, settings, read=False)
        middles = []
        for _ in range(100):
            batch = next(it)
            assert (batch["start"] >= 0).all() and (batch["start"] + 8 <= SIDE).all()
            middles += [bool(store.label(subjects[i])[tuple(s + 4)]) for i, s in zip(*batch.values(), strict=True)]
        share[sampling] = np.mean(middles)
    shown = np.mean([store.label(s)[4 : SIDE - 3, 4 : SIDE - 3, 4 : SIDE - 3].mean() for s in subjects])
    assert abs(share["all"] - shown) < 0.1
    assert abs(share["balanced"] - (0.5 + 0.5 * shown)) < 0.1 and share["balanced"] > share["all"] + 0.2
    with pytest.raises(InputError, match=r"every patch of .* is one fixed box: use `sampling=all`"):
        make_batches(store, subjects, BOX, InputSettings(2, sampling="balanced"))


def test_random_boxes_stay_inside_and_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(600):
        box = random_box((6, 9, 4), (4, 9, 7), rng)
        assert all(a >= 0 and b <= n for a, b, n in zip(box.start[:2], box.stop[:2], (6, 9), strict=True))
        assert box.start[1:] == (0, -2)  # a side that is too short is centred
        starts.add(box.start[0])
    assert starts == {0, 1, 2}


def test_the_training_box(tiny_store: Store, make_store: MakeStore) -> None:
    assert training_box(tiny_store) == Box((0, 0, 0), (SIDE,) * 3)
    store = make_store()
    store.patch_box = None
    with pytest.raises(InputError, match=r"no training subjects.*`test_fraction`"):
        training_box(store)


PROCESSES = """
import sys, pathlib
from absl import app
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.store.store import Store

def read(store, workers):
    it = make_batches(store, store.subjects(), Box((2, 0, -3), (8, 16, 16)), InputSettings(seed=4, workers=workers))
    out = [next(it) for _ in range(7)]
    state = it.get_state()
    return out, next(it), state

def main(argv):
    store = Store(pathlib.Path(argv[1]))
    (a, x, _), (b, y, state) = read(store, 0), read(store, 2)
    for p, q in zip([*a, x], [*b, y], strict=True):
        assert all((p[k] == q[k]).all() for k in p), "other batches"
    it = make_batches(store, store.subjects(), Box((2, 0, -3), (8, 16, 16)), InputSettings(seed=4, workers=2))
    it.set_state(state)
    assert all((v == y[k]).all() for k, v in next(it).items()), "not resumed"
    print("same")

if __name__ == "__main__":
    app.run(main)
"""


def test_worker_processes_give_the_same_batches(tiny_store: Store, tmp_path: Path) -> None:
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script), str(tiny_store.folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "JAX_PLATFORMS": "cpu"},
        timeout=300,
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


@pytest.mark.parametrize(("batch_size", "processes"), [(4, 2), (4, 4), (6, 3), (2, 2)])
def test_processes_rows_are_the_batch_of_one(batch_size: int, processes: int, tiny_store: Store) -> None:
    names = tiny_store.subjects()[:5]  # batches that hold two epochs
    whole = make_batches(tiny_store, names, None, InputSettings(batch_size, 3))
    parts = [
        make_batches(tiny_store, names, None, InputSettings(batch_size, 3, process=p, processes=processes))
        for p in range(processes)
    ]
    seen: list[int] = []
    for _ in range(5 * 2):
        batch, rows = next(whole), [next(p) for p in parts]
        # Random places too: the draws go by the place in the stream of all.
        assert same(batch, {k: np.concatenate([r[k] for r in rows]) for k in batch})
        seen += [int(i) for r in rows for i in r["index"]]
    epochs = [seen[i : i + 5] for i in range(0, len(seen), 5)]
    assert all(sorted(e) == list(range(5)) for e in epochs)


def test_a_position_is_the_same_for_any_number_of_processes(tiny_store: Store) -> None:
    names = tiny_store.subjects()[:5]
    whole = make_batches(tiny_store, names, BOX, InputSettings(4))
    second = make_batches(tiny_store, names, BOX, InputSettings(4, process=1, processes=2))
    for _ in range(3):
        next(whole)
        next(second)
    assert json.dumps(whole.get_state()) == json.dumps(second.get_state())
    fourth = make_batches(tiny_store, names, BOX, InputSettings(4, process=3, processes=4))
    fourth.set_state(second.get_state())
    assert same(next(fourth), {k: v[3:] for k, v in next(whole).items()})


def test_a_process_reads_its_own_rows_only(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store()
    read: list[str] = []
    image = Store.image

    def watched(self: Store, subject: str, *rest: Any) -> Any:
        if self is store:  # other tests' streams may still be reading theirs
            read.append(subject)
        return image(self, subject, *rest)

    monkeypatch.setattr(Store, "image", watched)
    names = store.subjects()[:4]
    settings = InputSettings(4, process=1, processes=2, threads=0)
    places = make_batches(store, names, BOX, settings, read=False)
    mine = [names[i] for _ in range(20) for i in next(places)["index"]]
    it = make_batches(store, names, BOX, settings)
    for _ in range(4):
        next(it)
    assert 8 <= len(read) < len(mine)  # a batch or two ahead
    assert sorted(read) == sorted(mine[: len(read)])


def test_a_batch_that_processes_cannot_share(tiny_store: Store) -> None:
    with pytest.raises(InputError, match=r"batch of 4 cannot be shared evenly by 3 processes.*`batch_size`"):
        make_batches(tiny_store, tiny_store.subjects(), BOX, InputSettings(4, processes=3))
