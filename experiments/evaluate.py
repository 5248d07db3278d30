"""Score a trained run on a prepared data set.

python -m experiments.evaluate --run=runs/finetune/NAME --dataset=oas_c --store=DIR
"""

from pathlib import Path

from absl import flags

from experiments import cli, evaluation_flags
from tlseg_jax.datasets.spec import get_spec
from tlseg_jax.evaluate.results import format_summary
from tlseg_jax.files import lock_folder
from tlseg_jax.preprocess.store import Store
from tlseg_jax.report.assess import assess
from tlseg_jax.train.checkpoint import load_model

RUN = flags.DEFINE_string("run", None, "Folder of a run that has trained.")
DATASET = flags.DEFINE_string("dataset", None, "A data set's name or a TOML file.")
STORE = flags.DEFINE_string("store", None, "Folder of the prepared data sets.")
SPLIT = flags.DEFINE_enum("split", "test", ["test", "train"], "Which subjects.")
DISTANCES = evaluation_flags.define_distances()
TILES = evaluation_flags.define_tiles()
flags.adopt_module_key_flags(evaluation_flags)  # so that --help lists them


def main() -> None:
    """Parse the flags, score, and print the summary."""
    run, name, root = Path(cli.required(RUN)), cli.required(DATASET), Path(cli.required(STORE))
    saved = load_model(run)
    # A store may have been prepared under another name (prepare --name): that folder's name works too.
    store = Store(root / name if (root / name / "manifest.json").exists() else root / get_spec(name).name)
    tiles = evaluation_flags.tiles(TILES)
    with lock_folder(run):
        entry = assess(run, saved, store, split=SPLIT.value, distances=DISTANCES.value, tiles=tiles)
    title = store.spec.name if SPLIT.value == "test" else f"{store.spec.name}_{SPLIT.value}"
    print(format_summary({title: entry}))
    seen = entry["seen_in_training"]
    if seen:
        print(
            f"warning: {len(seen)} of these scans were trained on ({', '.join(seen[:5])}): "
            "the score says little about new scans."
        )
    if entry["synthetic"]:
        print("These are synthetic heads: the scores mean nothing for patients.")
    print(f"run: {run}")


if __name__ == "__main__":
    cli.run(main)
