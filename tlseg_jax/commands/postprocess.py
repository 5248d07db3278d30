"""Train and measure the filter of false tumours for a trained 2D run (Chlebus et al. 2018).

tlseg postprocess --run=runs/finetune/NAME --dataset=lits --store=DIR

A random forest learns from the run's predictions on its own training volumes which 3D components are
false, is saved in RUN/postprocess/, and its effect on the test volumes is measured there
(effect.csv, effect.json).
"""

import dataclasses

from tlseg_jax.actions import places
from tlseg_jax.actions.places import Named
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.commands import cluster_flags, compilation_flags, flags
from tlseg_jax.evaluate.false_positives import train_forest
from tlseg_jax.evaluate.forest_effect import format_effect, measure_effect, predicted_volumes, save_effect
from tlseg_jax.evaluate.forest_file import save_forest
from tlseg_jax.preprocess.store.any_store import open_named_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.train.predictors import load_predictor
from tlseg_jax.train.seen import refuse_seen, seen_subjects


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """What the forest is for.

    Attributes:
      structure: what to clean; not given: the data set's last structure.
    """

    structure: str | None = None


NAMED = flags.define(Named)
CLEANING = flags.define(Cleaning)
flags.adopt(compilation_flags)


def main() -> None:
    """Parse the flags, train the forest, measure it, and print the table."""
    cluster_flags.refuse("train the forest once, where the run can be read")
    named = NAMED.settings()
    run, name, root = places.find_run(named.run), named.dataset, places.store(named.store)
    compilation_flags.set_up_jax()
    saved = load_model(run)
    if saved.config.dimensions != 2:
        raise InputError(f"{run} is a {saved.config.dimensions}D run and tumours are filtered of 2D runs only.")
    data = open_named_store(root, name)
    store = SliceStore(data.folder, data.manifest)
    structure = CLEANING.settings().structure or store.spec.target
    train = seen_subjects(store, "train", saved.description)
    test = store.subjects("test")
    if not train or not test:
        raise InputError(
            f"{store.where} holds {len(train)} volume(s) that {run} trained on and {len(test)} for test, and both "
            "are needed: give the data set that the run was trained on."
        )
    refuse_seen(store, saved.description, str(run))
    predictor = load_predictor(saved)
    outputs, channels = saved.config.outputs, saved.config.channels
    for volumes in (train, test):  # faults of either before the work on the first
        predicted_volumes(store, volumes, predictor, outputs, channels, structure, progress=False)
    with lock_folder(run):
        forest = train_forest(predicted_volumes(store, train, predictor, outputs, channels, structure))
        folder = run / "postprocess"
        save_forest(folder, forest)
        synthetic = bool(store.manifest.get("synthetic", False))
        entry = save_effect(
            folder,
            measure_effect(forest, predicted_volumes(store, test, predictor, outputs, channels, structure)),
            {
                "structure": structure,
                "dataset": store.spec.name,
                "store": store.where,
                "synthetic": synthetic,
                "train": list(train),
            },
        )
    print(f"forest of {forest.true_components} true and {forest.false_components} false components of {structure}")
    print(format_effect(entry))
    if synthetic:
        print("These are synthetic abdomens: the numbers mean nothing for patients.")
    print(f"written to {folder}")
