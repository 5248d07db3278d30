"""Is training ever kept waiting for its data, and how many samples a second does a prepared data set give?

    python -m benchmarks.loader [--store=STORE] [--networks=switch8x2,unet2d] [--workers=1,2] [--noquick]

First the store alone: samples a second of the stream that `train` reads, by threads and worker processes. Then
training: blocks of steps on batches from the store take turns with blocks on one batch that lies on the device, with
the recipe's own batch size, loss and augmentation. The ratio is 1 where the loader is never waited for. A block
is longer than what the stream reads ahead, so that batches read while the other side had its turn cannot hide a slow
loader. The files are in the page cache after the first round, as they are in training from the second epoch on.

Without --store a small built-in cohort is drawn into a temporary folder: heads of 2 mm and slices of 128x128 pixels
at reduced sizes, else 1 mm and 256x256.
"""

import collections
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, ratio, summary, write_result
from benchmarks.steps import of_data
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.models.networks import get_network
from tlseg_jax.phantoms.abdomen import cohort_spec
from tlseg_jax.phantoms.abdomen_cohort import write_abdomens
from tlseg_jax.phantoms.cohort import write_cohort
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.prepare_slices import prepare_slices
from tlseg_jax.preprocess.store.any_store import AnyStore, open_any_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.readings import LAG
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.task_data import TaskData

flags.adopt_module_key_flags(common_flags)
STORE = flags.DEFINE_string("store", None, "Prepared data sets, or one of them; default: a built-in cohort.")
WORKERS = flags.DEFINE_list("workers", ["1", "2"], "Worker processes to try, besides threads alone.")
BLOCK = flags.DEFINE_integer(
    "block", 16, "Steps on one side before the other side's turn; the stream reads 8 batches ahead.", lower_bound=9
)

THREADS = (1, 2, 4)
DRAWN, TEST = 4, 1
"""Training and test volumes of the temporary cohort."""

READ_AHEAD = 10
"""Batches thrown away before a turn of reading is timed: what was read ahead, and a little."""

SECONDS = 1.0
"""Least length of a turn of reading."""


def job_for(store: AnyStore, network: str, threads: int = 2, workers: int = 0) -> JobSettings:
    """The default recipe of the papers' batch size: 2 patches, 10 CT slices or 18 MRI slices."""
    config = get_network(network)
    if isinstance(store, SliceStore):
        config = dataclasses.replace(config, outputs=store.spec.structures)  # type: ignore[arg-type]
        recipe = get_recipe("default", "slices", "pretrain" if store.spec.planes.modality == "CT" else "finetune")
    else:
        recipe = get_recipe("default")
    if common_flags.TINY.value:
        recipe = dataclasses.replace(recipe, batch_size=1)
    return JobSettings(config, recipe, steps=None, threads=threads, workers=workers)


def read_rates(store: AnyStore, network: str, workers: list[int], rounds: int) -> dict[str, float]:
    """Samples a second of the stream, by how it reads: the median of turns."""
    subjects = store.subjects("train")
    streams: dict[str, tuple[Iterator[Any], list[float]]] = {}
    for threads, processes in [*((t, 0) for t in THREADS), *((2, w) for w in workers)]:
        name = f"{threads} thread{'s' * (threads > 1)}" + (f", {processes} processes" if processes else "")
        data = TaskData(store, job_for(store, network, threads, processes), None)
        streams[name] = (data.batches(subjects), [])

    def read(stream: Iterator[Any], rates: list[float]) -> None:
        for _ in range(READ_AHEAD):
            next(stream)
        start, samples = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            samples += len(next(stream)["index"])
        rates.append(samples / (time.perf_counter() - start))

    alternate({name: lambda s=s: read(*s) for name, s in streams.items()}, rounds, warmup=0)  # type: ignore[misc]
    return {name: summary(rates)["median"] for name, (_, rates) in streams.items()}


def training_turns(
    store: AnyStore, network: str, block: int
) -> tuple[dict[str, Callable[[], object]], dict[str, list[float]]]:
    """A block of steps on the store's batches, and one on a batch that lies on the device.

    Returns:
      The two, by name, each of which returns when its last step is done; and for each block from the store the
      seconds that the host stood before an empty stream, filled as it goes. With steps under way the device need not
      have waited as long.
    """
    job, subjects = job_for(store, network), store.subjects("train")
    data = TaskData(store, job, None)
    step, first = of_data(data, job)
    dispatch, state = Dispatch(step), first()
    stream = data.batches(subjects)
    held = jax.device_put({k: v for k, v in next(stream).items() if k != "index"})
    waited: dict[str, list[float]] = {"store": []}

    def train(batch: Callable[[], Any]) -> None:
        nonlocal state
        pending: collections.deque[Any] = collections.deque()
        for _ in range(block):
            state, metrics = dispatch(state, [batch()])
            pending.append(metrics)
            if len(pending) > LAG:  # as the training loop reads its losses
                jax.device_get(pending.popleft())
        jax.block_until_ready((state, list(pending)))

    def from_store() -> None:
        seconds = 0.0

        def take() -> Any:
            nonlocal seconds
            start = time.perf_counter()
            batch = next(stream)
            seconds += time.perf_counter() - start
            return batch

        train(take)
        waited["store"].append(seconds)

    return {"store": from_store, "held": lambda: train(lambda: held)}, waited


def measure(store: AnyStore, network: str, workers: list[int], rounds: int, block: int) -> dict[str, Any]:
    """One data set and network; see the module."""
    job = job_for(store, network)
    data = TaskData(store, job, None)
    rates = read_rates(store, network, workers, min(rounds, 3))
    turns, waited = training_turns(store, network, block)
    seconds = {n: [s / block for s in all_] for n, all_ in alternate(turns, rounds, warmup=1).items()}
    shape = data.batch_shapes()["image"].shape
    return {
        "data": store.spec.name,
        "synthetic": bool(store.manifest.get("synthetic", False)),
        "network": network,
        "batch": shape[0],
        "shape": list(shape[1 : 1 + job.network.dimensions]),
        "threads": job.threads,
        "samples_a_second_of_the_store": rates,
        "steps_a_block": block,
        "step_seconds_from_store": summary(seconds["store"]),
        "step_seconds_on_a_held_batch": summary(seconds["held"]),
        "samples_a_second_in_training": shape[0] / summary(seconds["store"])["median"],
        "host_share_before_an_empty_stream": sum(waited["store"][1:]) / sum(s * block for s in seconds["store"]),
        "ratio_store_to_held": ratio(seconds["store"], seconds["held"]),
    }


def given_stores(folder: Path) -> list[AnyStore]:
    """The prepared data sets with training subjects under a folder, or the one that it is.

    Raises:
      InputError: there is none.
    """
    folders = [folder] if (folder / "manifest.json").exists() else sorted(folder.glob("*/"))
    stores = [open_any_store(f) for f in folders if (f / "manifest.json").exists()]
    found = [s for s in stores if s.subjects("train")]
    if not found:
        raise InputError(
            f"--store={folder} holds no prepared data set with training subjects: prepare one with "
            "'tlseg prepare', or leave --store out for a built-in cohort."
        )
    return found


def drawn_store(folder: Path, dimensions: int, reduced: bool) -> AnyStore:
    """A small built-in cohort, prepared: heads for a 3D network, CT slices for a 2D one."""
    drawn = 1 if common_flags.TINY.value else DRAWN
    if dimensions == 3:
        heads, spacing = get_spec("hdt_v"), 2.0 if reduced else 1.0
        heads = heads.at_spacing(spacing)
        source = write_cohort(heads, folder / "heads", train=drawn, test=TEST, spacing=spacing)
        settings = PrepareSettings(registration="skip", bias_correction=False)  # of no matter here, and slow
        return prepare_dataset(heads, source, folder / "store", settings)
    abdomens = get_spec("lits")
    abdomens = cohort_spec(abdomens).changed(test_volumes=TEST)
    if common_flags.TINY.value or not reduced:
        abdomens = abdomens.changed(pixels=(32, 32) if reduced else (256, 256))
    source = write_abdomens(abdomens, folder / "abdomens", volumes=drawn + TEST)
    return prepare_slices(abdomens, source, folder / "store")


def main() -> None:
    """Measure every data set with the networks that fit it, print the table and write the JSON."""
    if not all(w.isdecimal() for w in WORKERS.value):
        raise InputError(f"--workers={','.join(WORKERS.value)}: give whole numbers of processes, or an empty list.")
    reduced, workers = common_flags.quick(), [int(w) for w in WORKERS.value]
    networks = common_flags.networks(("switch8x2", "unet2d"))
    cases = []
    with tempfile.TemporaryDirectory(prefix="tlseg_loader_") as temporary:
        wanted = {get_network(n).dimensions for n in networks}
        if STORE.value:
            stores = given_stores(Path(STORE.value))
        else:
            stores = [drawn_store(Path(temporary), d, reduced) for d in sorted(wanted, reverse=True)]
        for store in stores:
            for network in networks:
                if get_network(network).dimensions != (2 if isinstance(store, SliceStore) else 3):
                    continue
                case = measure(store, network, workers, common_flags.rounds(reduced), BLOCK.value)
                cases.append(case)
                _tell(case)
    sizes = {"sizes": "as prepared"} if STORE.value else {"sizes": common_flags.kind()}
    write_result("loader", sizes | {"cases": cases}, common_flags.OUT.value)


def _tell(case: dict[str, Any]) -> None:
    size = "x".join(map(str, case["shape"]))
    r = case["ratio_store_to_held"]
    print(f"{case['data']}, {case['network']}, {case['batch']} x {size}")
    for how, rate in case["samples_a_second_of_the_store"].items():
        print(f"  the store alone, {how:<24}{rate:>9.1f} samples/s")
    print(f"  training takes {case['samples_a_second_in_training']:.1f} samples/s, ", end="")
    print(f"{r['median']:.3f} ({r['low']:.3f} to {r['high']:.3f}) times as long as on one held batch", flush=True)


if __name__ == "__main__":
    common_flags.run(main)
