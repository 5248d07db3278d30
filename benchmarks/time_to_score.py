"""How many seconds to a score: this project's networks against MONAI's, from nothing to a trained model.

    python -m benchmarks.time_to_score --stores=DIR/hdt_c,DIR/hdt_v [--n=4,12] [--seconds=30,60,120] [--seeds=0]
        [--against=BasicUNet,UNet,SegResNet,DynUNet] [--networks=unet_fast,switch8x2] [--folds=5]
    python -m benchmarks.time_to_score --stores=DIR/mr_chaos --networks=unet2d --folds=5

Each network is given each number of seconds of wall-clock, in a process of its own that starts with nothing: importing,
compiling and loading count. Its rate falls to the end of its seconds, so every budget is a training of its own. All
train on the same prepared patches with the same kinds of augmentation, and are scored alike: Dice of each structure of
each test scan of the store (and of --also, stores whose scans are all held out) against the whole label. With --folds
the persons are divided so many ways and each part is held out in turn. Of slices a scan is scored as a volume.

MONAI's are in the fastest of their forms (channels last or not, bfloat16 or float32), found before the clock starts,
as are the seconds of this project's step, from which the steps of its budget follow.
"""

import functools
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from numpy.typing import NDArray

from benchmarks import flags as common_flags
from benchmarks import stores as store_flags
from benchmarks.measure import environment, write_result
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.geometry import paste
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.preprocess.folds import take_fold
from tlseg_jax.preprocess.store.any_store import AnyStore, open_any_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)
flags.adopt_module_key_flags(store_flags)

FOLDS = flags.DEFINE_integer("folds", 0, "Of persons, each held out in turn; 0: the split as prepared.")
ALSO = flags.DEFINE_list("also", [], "Prepared data sets whose scans are all tested too, prepared as each of --stores.")
LABELLED = flags.DEFINE_list("n", ["4", "12"], "Labelled scans.")
SECONDS = flags.DEFINE_list("seconds", ["30", "60", "120"], "Budgets, in seconds of wall-clock.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds.")
AGAINST = flags.DEFINE_list("against", ["BasicUNet", "UNet", "SegResNet", "DynUNet"], "Networks of MONAI.")
CHILD = flags.DEFINE_string("child", None, "Used by the command itself: what one process is to do, as JSON.")

NETWORKS = ("unet_fast", "switch8x2")
MOST_PILOT = 500
"""Steps, from which no longer training is tried before the clock starts."""

BATCH = {"volumes": 2, "slices": 10}
"""Samples a step of MONAI's; of ours the recipe's."""


def opened(folder: str, fold: int, folds: int) -> AnyStore:
    """A prepared data set with one fold of persons held out."""
    store = open_any_store(Path(folder))
    if not store.spec.exclusive and len(store.spec.structures) > 1:
        raise InputError(f"{store.where} has structures that overlap, and MONAI's side is a softmax: give another.")
    return take_fold(store, fold, folds) if folds else store


def patch_of(store: AnyStore) -> Any:
    """The box of the patch; None of slices."""
    if isinstance(store, SliceStore):
        return None
    from tlseg_jax.input.patches import training_box

    box = training_box(store)
    if box is None:
        raise InputError(f"{store.where} has patches at random places: give data sets with one fixed patch.")
    return box


def training_samples(store: AnyStore, n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(samples, *sides) of the patches or slices of the n labelled scans that `finetune --n --seed` takes."""
    from tlseg_jax.datasets.splits import labelled_subset

    chosen = labelled_subset(store.subjects("train"), store.persons, n, seed)
    if isinstance(store, SliceStore):
        images = np.concatenate([store.volume_image(s)[..., 0] for s in chosen]).astype(np.float32)
        return images, np.concatenate([store.codes(s) for s in chosen])
    box = patch_of(store)
    return np.stack([store.image(s, box).astype(np.float32) for s in chosen]), np.stack(
        [store.label(s, box) for s in chosen]
    )


def by_monai(task: Mapping[str, Any], begun: float) -> dict[str, Any]:
    """One training by PyTorch; the label maps go to task["out"]."""
    from benchmarks.peers.trained import Training

    store = opened(task["store"], task["fold"], task["folds"])
    flat, batch = store.spec.kind == "slices", BATCH[store.spec.kind]
    images, labels = training_samples(store, task["n"], task["seed"])
    training = Training(task["network"], len(store.spec.structures) + 1, images, labels, task["seed"])
    if task["pilot"]:
        last, half = training.fastest(batch)
        return {"last": last, "half": half}
    flip = store.spec.grid.flip_left_right and not any("_left" in s for s in store.spec.structures)
    steps = training.train(begun + task["seconds"], begun, batch, task["last"], task["half"], flip)
    taken = time.time() - begun
    _save(
        task,
        {
            name: np.stack([training.predict(plane) for plane in image]) if flat else training.predict(image)
            for name, image in _tests(store, task["also"])
        },
    )
    return {"steps": steps, "taken": taken, "parameters": sum(p.numel() for p in training.network.parameters())}


def by_ours(task: Mapping[str, Any], begun: float) -> dict[str, Any]:
    """One training by this project, as `finetune --pretask=none` does it; the label maps go to task["out"]."""
    import logging

    from tlseg_jax.evaluate.slice_inference import predict_planes
    from tlseg_jax.models.networks import count_parameters
    from tlseg_jax.preprocess.codes import decide
    from tlseg_jax.studies.jobs import make_job
    from tlseg_jax.studies.settings import Training
    from tlseg_jax.studies.workplace import Workplace
    from tlseg_jax.train.job import train_job
    from tlseg_jax.train.predictors import make_predictor

    logging.disable(logging.INFO)
    store = opened(task["store"], task["fold"], task["folds"])
    (Path(task["folder"]) / "run").mkdir()
    place = Workplace(store=Path(task["store"]).parent, workdir=Path(task["folder"]))
    given = Training(
        n=task["n"], seed=task["seed"], network=task["network"], steps=task["steps"], checkpoint_every=10**6
    )
    job = make_job(place, store.spec, "finetune", given)
    fit = train_job(store, job, Path(task["folder"]) / "run", progress=False)
    taken = time.time() - begun
    if not task["pilot"]:
        predict = make_predictor(job.network, **fit.state.model)

        def found(image: Any) -> Any:
            if store.spec.kind == "slices":
                return predict_planes(image[..., None], predict)
            return predict(image[None])[0]

        tests = _tests(store, task["also"])
        _save(task, {name: decide(found(image), store.spec.exclusive) for name, image in tests})
    return {"steps": task["steps"], "taken": taken, "parameters": count_parameters(fit.state.params)}


def _tests(store: AnyStore, also: Sequence[str]) -> Iterable[tuple[str, Any]]:
    """("STORE:SUBJECT", patch or slices) of each test scan."""
    box, others = patch_of(store), [open_any_store(Path(a)) for a in also]
    for of, subjects in ((store, store.subjects("test")), *((other, other.subjects()) for other in others)):
        for s in subjects:
            image = of.volume_image(s)[..., 0] if isinstance(of, SliceStore) else of.image(s, box)
            yield f"{of.folder}:{s}", image.astype(np.float32)


def _save(task: Mapping[str, Any], maps: Mapping[str, Any]) -> None:
    np.savez_compressed(task["out"], **maps)


def _child(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a process of its own answers, whose clock starts before it does."""
    told = json.dumps({**task, "begun": time.time()})
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.time_to_score", f"--child={told}"], capture_output=True, text=True
    )
    if ran.returncode:
        raise InputError(f"{task['network']} ended with code {ran.returncode}: {ran.stderr.strip()[-600:]}")
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer


def _pilots(task: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """Two trainings, the second so long that its steps outlast what starting takes now more and now less."""
    short, steps = _child(task(steps=5)), 25
    while (long := _child(task(steps=steps)))["taken"] < 1.5 * short["taken"] and steps < MOST_PILOT:
        steps *= 3
    return [short, long]


def steps_for(seconds: float, pilots: Sequence[Mapping[str, Any]]) -> int:
    """The steps that fit into some seconds, from two trainings of other lengths."""
    short, long = pilots
    step = (long["taken"] - short["taken"]) / (long["steps"] - short["steps"])
    return max(1, int((seconds - short["taken"]) / max(step, 1e-3)) + int(short["steps"]))


def scores(store: AnyStore, also: Sequence[str], found: Path) -> list[dict[str, Any]]:
    """Dice of each structure of each scan whose label map is in `found`, against the whole label."""
    rows, box = [], patch_of(store)
    stores = {str(s.folder): s for s in (store, *(open_any_store(Path(a)) for a in also))}
    with np.load(found) as maps:
        for name, codes in maps.items():
            where, _, subject = name.rpartition(":")
            of = stores[where]
            for place, structure in enumerate(store.spec.structures):
                theirs = of.mask(subject, structure)
                ours = mask_of(codes, place, store.spec.exclusive)
                if box is not None:
                    whole = np.zeros(theirs.shape, np.bool_)
                    paste(ours, box, whole)
                    ours = whole
                dice = score(ours, theirs, (1.0, 1.0, 1.0)).dice
                rows.append({"store": of.spec.name, "subject": subject, "structure": structure, "dice": dice})
    return rows


def measure(
    folder: str, fold: int, n: int, seed: int, budgets: Sequence[float], also: Sequence[str], known: dict[Any, Any]
) -> Iterable[dict[str, Any]]:
    """The runs of all networks on one data set, alternating within each budget.

    `known` keeps what was found out before the clock starts, by data set, n and network: the same for every fold.
    """
    store = opened(folder, fold, FOLDS.value)
    usual: dict[str, Any] = {
        "store": str(store.folder.resolve()),
        "n": n,
        "seed": seed,
        "also": [str(Path(a).resolve()) for a in also],
    }
    usual |= {"fold": fold, "folds": FOLDS.value}
    ready: dict[str, dict[str, Any]] = {}
    key = (usual["store"], n)
    ours = common_flags.networks(NETWORKS)
    with tempfile.TemporaryDirectory() as scratch:
        numbers = itertools.count()

        def task(network: str, **what: Any) -> dict[str, Any]:
            folder = Path(scratch) / str(next(numbers))
            folder.mkdir()
            whose = "ours" if network in ours else "monai"
            told = {"whose": whose, "network": network, "folder": str(folder), "out": str(folder / "maps.npz")}
            return usual | {"pilot": False} | told | what

        for network in (*ours, *AGAINST.value):
            if (*key, network) not in known and network in ours:
                known[*key, network] = {"pilots": _pilots(functools.partial(task, network, pilot=True))}
            elif (*key, network) not in known:
                known[*key, network] = _child(task(network, pilot=True))
            ready[network] = known[*key, network]
        for seconds, network in itertools.product(budgets, ready):
            if network in ours:
                one = task(network, steps=steps_for(seconds, ready[network]["pilots"]))
            else:
                one = task(network, seconds=seconds, **ready[network])
            answer = _child(one)
            rows = scores(store, usual["also"], Path(one["out"]))
            how = {k: one[k] for k in ("last", "half") if k in one}
            of = {"network": network, "data": store.spec.name, "n": n, "seed": seed, "fold": fold, "budget": seconds}
            each = {"dice": float(np.mean([r["dice"] for r in rows])), "lowest": min(r["dice"] for r in rows)}
            yield of | how | answer | each | {"scores": rows}


def main() -> None:
    """Parse the flags, measure, print and write."""
    if CHILD.value:
        task = json.loads(CHILD.value)
        answer = (by_ours if task["whose"] == "ours" else by_monai)(task, task["begun"])
        print(json.dumps(answer))
        return
    if not store_flags.STORES.value:
        raise InputError("--stores is missing: give folders of prepared data sets, as in --stores=DIR/hdt_c.")
    before, runs, known = environment(), [], dict[Any, Any]()
    budgets = sorted(float(s) for s in SECONDS.value)
    folds = range(FOLDS.value or 1)
    for folder, n, seed, fold in itertools.product(
        store_flags.STORES.value, map(int, LABELLED.value), map(int, SEEDS.value), folds
    ):
        for run in measure(folder, fold, n, seed, budgets, ALSO.value, known):
            runs.append(run)
            of = f"{run['data']} n={n} seed {seed} fold {fold}"
            told = f"{run['network']} {run['taken']:.0f} s, {run['steps']} steps"
            print(f"{of}: {told}: Dice {run['dice']:.3f}, lowest {run['lowest']:.3f}", flush=True)
            path = write_result(
                "time_to_score",
                {"question": "seconds to a mean Dice on held-out scans", "runs": runs, "environment": before},
                common_flags.OUT.value,
                quiet=True,
            )
    print(f"written to {path.parent}")


if __name__ == "__main__":
    common_flags.run(main)
