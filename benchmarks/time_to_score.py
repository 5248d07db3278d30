"""How many seconds to a score: this project's networks against MONAI's, from nothing to a trained model.

    python -m benchmarks.time_to_score --stores=DIR/hdt_c,DIR/hdt_v [--n=4,12] [--seconds=30,60,120] [--seeds=0]
        [--against=BasicUNet,UNet,SegResNet,DynUNet] [--networks=unet_fast,switch8x2]

Each network is given each number of seconds of wall-clock, in a process of its own that starts with nothing: importing,
compiling and loading count. Its rate falls to the end of its seconds, so every budget is a training of its own. All
train on the same prepared patches with the same kinds of augmentation, and are scored alike: Dice of each structure of
each test scan of the store (and of --also, stores whose scans are all held out) against the whole label.

MONAI's are in the fastest of their forms (channels last or not, bfloat16 or float32), found before the clock starts,
as are the seconds of this project's step, from which the steps of its budget follow.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import environment, write_result
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.geometry import paste
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)

STORES = flags.DEFINE_list("stores", None, "Prepared data sets of volumes, one training each.")
ALSO = flags.DEFINE_list("also", [], "Prepared data sets whose scans are all tested too, prepared as each of --stores.")
LABELLED = flags.DEFINE_list("n", ["4", "12"], "Labelled scans.")
SECONDS = flags.DEFINE_list("seconds", ["30", "60", "120"], "Budgets, in seconds of wall-clock.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds.")
AGAINST = flags.DEFINE_list("against", ["BasicUNet", "UNet", "SegResNet", "DynUNet"], "Networks of MONAI.")
CHILD = flags.DEFINE_string("child", None, "Used by the command itself: what one process is to do, as JSON.")

NETWORKS = ("unet_fast", "switch8x2")
BATCH = 2


def training_patches(store: Store, n: int, seed: int) -> tuple[Any, list[str]]:
    """(the patch's box, the names of the n labelled scans that `finetune --n --seed` takes)."""
    from tlseg_jax.datasets.splits import labelled_subset
    from tlseg_jax.input.patches import training_box

    box = training_box(store)
    if box is None:
        raise InputError(f"{store.where} has patches at random places: give data sets with one fixed patch.")
    return box, list(labelled_subset(store.subjects("train"), store.persons, n, seed))


def by_monai(task: Mapping[str, Any], begun: float) -> dict[str, Any]:
    """One training by PyTorch; the label maps go to task["out"]."""
    from benchmarks.peers.trained import Training

    store = Store(Path(task["store"]))
    box, chosen = training_patches(store, task["n"], task["seed"])
    images = np.stack([store.image(s, box).astype(np.float32) for s in chosen])
    labels = np.stack([store.label(s, box) for s in chosen])
    training = Training(task["network"], len(store.spec.outputs), images, labels, task["seed"])
    if task["pilot"]:
        last, half = training.fastest(BATCH)
        return {"last": last, "half": half}
    flip = store.spec.grid.flip_left_right and not any("_left" in s for s in store.spec.structures)
    steps = training.train(begun + task["seconds"], begun, BATCH, task["last"], task["half"], flip)
    taken = time.time() - begun
    _save(task, {name: training.predict(patch) for name, patch in _tests(store, box, task["also"])})
    return {"steps": steps, "taken": taken, "parameters": sum(p.numel() for p in training.network.parameters())}


def by_ours(task: Mapping[str, Any], begun: float) -> dict[str, Any]:
    """One training by this project, as `finetune --pretask=none` does it; the label maps go to task["out"]."""
    import logging

    from tlseg_jax.models.networks import count_parameters
    from tlseg_jax.preprocess.codes import decide
    from tlseg_jax.studies.jobs import make_job
    from tlseg_jax.studies.settings import Training
    from tlseg_jax.studies.workplace import Workplace
    from tlseg_jax.train.job import train_job
    from tlseg_jax.train.predictors import make_predictor

    logging.disable(logging.INFO)
    store = Store(Path(task["store"]))
    (Path(task["folder"]) / "run").mkdir()
    place = Workplace(store=Path(task["store"]).parent, workdir=Path(task["folder"]))
    given = Training(
        n=task["n"], seed=task["seed"], network=task["network"], steps=task["steps"], checkpoint_every=10**6
    )
    job = make_job(place, store.spec, "finetune", given)
    fit = train_job(store, job, Path(task["folder"]) / "run", progress=False, tell_flops=False)
    taken = time.time() - begun
    if not task["pilot"]:
        box, _ = training_patches(store, task["n"], task["seed"])
        predict = make_predictor(job.network, fit.state.params, fit.state.batch_stats)
        tests = _tests(store, box, task["also"])
        _save(task, {name: decide(predict(patch[None])[0], store.spec.exclusive) for name, patch in tests})
    return {"steps": task["steps"], "taken": taken, "parameters": count_parameters(fit.state.params)}


def _tests(store: Store, box: Any, also: Sequence[str]) -> Iterable[tuple[str, Any]]:
    """("STORE:SUBJECT", patch) of each test scan."""
    held_out = [(store, store.subjects("test")), *((other, other.subjects()) for other in map(Store, map(Path, also)))]
    for of, subjects in held_out:
        for s in subjects:
            yield f"{of.folder}:{s}", of.image(s, box).astype(np.float32)


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


def steps_for(seconds: float, pilots: Sequence[Mapping[str, Any]]) -> int:
    """The steps that fit into some seconds, from two trainings of other lengths."""
    short, long = pilots
    step = (long["taken"] - short["taken"]) / (long["steps"] - short["steps"])
    return max(1, int((seconds - short["taken"]) / max(step, 1e-3)) + int(short["steps"]))


def scores(store: Store, also: Sequence[str], found: Path) -> list[dict[str, Any]]:
    """Dice of each structure of each scan whose label map is in `found`, against the whole label."""
    rows = []
    box, _ = training_patches(store, 1, 0)
    stores = {str(s.folder): s for s in (store, *(Store(Path(a)) for a in also))}
    with np.load(found) as maps:
        for name, codes in maps.items():
            where, _, subject = name.rpartition(":")
            of = stores[where]
            for place, structure in enumerate(store.spec.structures):
                theirs = of.mask(subject, structure)
                ours = np.zeros(theirs.shape, np.bool_)
                paste(mask_of(codes, place, store.spec.exclusive), box, ours)
                dice = score(ours, theirs, of.grid(subject).voxel).dice
                rows.append({"store": of.spec.name, "subject": subject, "structure": structure, "dice": dice})
    return rows


def measure(store: Store, n: int, seed: int, budgets: Sequence[float], also: Sequence[str]) -> Iterable[dict[str, Any]]:
    """The runs of all networks on one data set, alternating within each budget."""
    usual = {"store": str(store.folder.resolve()), "n": n, "seed": seed, "also": [str(Path(a).resolve()) for a in also]}
    ready: dict[str, dict[str, Any]] = {}
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
            if network in ours:
                pilots = [_child(task(network, pilot=True, steps=steps)) for steps in (5, 25)]
                ready[network] = {"pilots": pilots}
            else:
                ready[network] = _child(task(network, pilot=True))
        for seconds, network in itertools.product(budgets, ready):
            if network in ours:
                one = task(network, steps=steps_for(seconds, ready[network]["pilots"]))
            else:
                one = task(network, seconds=seconds, **ready[network])
            answer = _child(one)
            rows = scores(store, usual["also"], Path(one["out"]))
            how = {k: one[k] for k in ("last", "half") if k in one}
            of = {"network": network, "data": store.spec.name, "n": n, "seed": seed, "budget": seconds}
            each = {"dice": float(np.mean([r["dice"] for r in rows])), "lowest": min(r["dice"] for r in rows)}
            yield of | how | answer | each | {"scores": rows}


def main() -> None:
    """Parse the flags, measure, print and write."""
    if CHILD.value:
        task = json.loads(CHILD.value)
        answer = (by_ours if task["whose"] == "ours" else by_monai)(task, task["begun"])
        print(json.dumps(answer))
        return
    if not STORES.value:
        raise InputError("--stores is missing: give folders of prepared data sets, as in --stores=DIR/hdt_c.")
    before, runs = environment(), []
    budgets = sorted(float(s) for s in SECONDS.value)
    for folder, n, seed in itertools.product(STORES.value, map(int, LABELLED.value), map(int, SEEDS.value)):
        for run in measure(Store(Path(folder)), n, seed, budgets, ALSO.value):
            runs.append(run)
            told = f"{run['data']} n={n} seed {seed}: {run['network']} {run['taken']:.0f} s, {run['steps']} steps"
            print(f"{told}: Dice {run['dice']:.3f}, lowest {run['lowest']:.3f}", flush=True)
            path = write_result(
                "time_to_score",
                {"question": "seconds to a mean Dice on held-out scans", "runs": runs, "environment": before},
                common_flags.OUT.value,
                quiet=True,
            )
    print(f"written to {path.parent}")


if __name__ == "__main__":
    common_flags.run(main)
