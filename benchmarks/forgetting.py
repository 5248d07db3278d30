"""What of a fine-tuned network has forgotten its pre-task: the batch norms' averages, their scales, or the rest?

    python -m benchmarks.forgetting --pretrained=RUN --finetuned=RUN1,RUN2 --stores=DIR/ct_msd,DIR/mr_chaos

Parts of the network before and after fine-tuning are put together in every way that tells them apart, and each mixture
is scored on the test scans of the pre-task and of the target. One whose norms alone are of the pre-trained network is
what domain-specific batch norms (Chang et al. 2019) would be: a set of norms a domain, and all else shared. With "own"
the norms take their means and variances from the scan itself (AdaBN, Li et al. 2017).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks import flags as common_flags
from benchmarks import stores as store_flags
from benchmarks.measure import environment, write_result
from tlseg_jax.actions import places
from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.exported import load_saved
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.evaluate.results import evaluate_store
from tlseg_jax.preprocess.store.any_store import AnyStore, open_any_store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.assess import place_in
from tlseg_jax.train.predictors import load_predictor

flags.adopt_module_key_flags(common_flags)
flags.adopt_module_key_flags(store_flags)

PRETRAINED = flags.DEFINE_string("pretrained", None, "The run, or exported model, that the others started from.")
FINETUNED = flags.DEFINE_list("finetuned", None, "Fine-tuned runs of one network, for instance of several seeds.")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Of which network the parts are: "pre" (before fine-tuning), "fine" (after) or, of averages, "own" (the scan's).

    Attributes:
      weights: convolutions and all else that is no norm.
      scales: the norms' scales and offsets.
      averages: the norms' means and variances.
    """

    weights: str
    scales: str
    averages: str


MIXTURES: Mapping[str, Mixture] = {
    "pre-trained": Mixture("pre", "pre", "pre"),
    "fine-tuned": Mixture("fine", "fine", "fine"),
    "fine-tuned, averages restored": Mixture("fine", "fine", "pre"),
    "fine-tuned, norms restored": Mixture("fine", "pre", "pre"),
    "fine-tuned, averages of the scan": Mixture("fine", "fine", "own"),
    "fine-tuned, scales restored, averages of the scan": Mixture("fine", "pre", "own"),
    "pre-trained, fine-tuned averages": Mixture("pre", "pre", "fine"),
    "pre-trained, fine-tuned norms": Mixture("pre", "fine", "fine"),
    "pre-trained, averages of the scan": Mixture("pre", "pre", "own"),
}


def mixed(pre: SavedModel, fine: SavedModel, mixture: Mixture) -> SavedModel:
    """The network of a mixture; of "own" averages, which `adabn` puts in their place, the fine-tuned ones."""
    networks = {"pre": pre, "fine": fine}
    norms = {path[:-1] for path in flatten_dict(dict(fine.batch_stats))}
    found = {name: flatten_dict(dict(of.params)) for name, of in networks.items()}
    params = {path: found[mixture.scales if path[:-1] in norms else mixture.weights][path] for path in found["fine"]}
    averages = networks.get(mixture.averages, fine).batch_stats
    return dataclasses.replace(fine, params=unflatten_dict(params), batch_stats=averages)


def check_alike(pre: SavedModel, fine: SavedModel, run: str) -> None:
    """Raise InputError where the parts of the two cannot be put together."""
    if pre.config != fine.config:
        raise InputError(
            f"{run} is another network than --pretrained, or has other outputs: parts of them cannot be put together. "
            "Name a run that was fine-tuned for the same structures."
        )


def dice_on(store: AnyStore, saved: SavedModel, share: float) -> dict[str, float]:
    """Mean Dice of each structure over the test scans, specks dropped as a run's scores have it."""
    spec = spec_from_dict(saved.description["spec"], "the run")
    place = place_in(store, spec, "the run", saved.description["patch_box"])
    results = evaluate_store(
        store,
        "test",
        spec,
        place,
        load_predictor(saved, share),
        channels=saved.config.channels,
        smallest=saved.description.get("smallest_pieces"),
        progress=False,
    )
    return {rows[0].test_set: float(np.mean([r.score.dice for r in rows])) for rows in results.rows.values() if rows}


def measure(pre: SavedModel, runs: Mapping[str, SavedModel], stores: Sequence[AnyStore]) -> list[dict[str, Any]]:
    """A case for each mixture and test set: Dice of each run, and their mean."""
    cases = []
    for name, mixture in MIXTURES.items():
        dice: dict[str, list[float]] = {}
        share = 1.0 if mixture.averages == "own" else 0.0
        of_fine = "fine" in dataclasses.astuple(mixture)  # else it is one network, whatever was fine-tuned
        for fine, store in itertools.product(list(runs.values())[: None if of_fine else 1], stores):
            for test_set, value in dice_on(store, mixed(pre, fine, mixture), share).items():
                dice.setdefault(test_set, []).append(value)
        for test_set, values in dice.items():
            cases.append(
                {"network": name, **dataclasses.asdict(mixture)}
                | {"test set": test_set, "Dice": float(np.mean(values)), "runs": values}
            )
            print(
                f"{name:50} {test_set:20} {np.mean(values):.3f}  ({', '.join(f'{v:.3f}' for v in values)})", flush=True
            )
    return cases


def main() -> None:
    """Mix, score and write."""
    if not (PRETRAINED.value and FINETUNED.value and store_flags.STORES.value):
        raise InputError(
            "Give --pretrained, --finetuned and --stores: a run, those that started from it, prepared data sets."
        )
    started = environment()
    pre = load_saved(places.find_run(PRETRAINED.value))
    runs = {name: load_saved(places.find_run(name)) for name in FINETUNED.value}
    for name, fine in runs.items():
        check_alike(pre, fine, name)
    cases = measure(pre, runs, [open_any_store(Path(folder)) for folder in store_flags.STORES.value])
    write_result("forgetting", {"environment": started, "cases": cases}, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
