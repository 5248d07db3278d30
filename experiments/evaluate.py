"""Score a trained run on a prepared data set.

python -m experiments.evaluate --run=runs/finetune/NAME --dataset=oas_c --store=DIR
"""

from absl import flags

from experiments import cli, cluster_flags, compilation_flags, evaluation_flags
from tlseg_jax.checkpoints.run_folder import hold_run
from tlseg_jax.evaluate.results import format_summary
from tlseg_jax.preprocess.store.any_store import open_named_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.assess import assess
from tlseg_jax.studies.assess_slices import assess_slices
from tlseg_jax.train.shared_model import load_shared_model

RUN = flags.DEFINE_string("run", None, "Folder of a run that has trained.")
DATASET = flags.DEFINE_string("dataset", None, "A data set's name or a TOML file.")
STORE = flags.DEFINE_string("store", None, "Folder of the prepared data sets.")
SPLIT = flags.DEFINE_enum("split", "test", ["test", "train"], "Which subjects.")
SPACE = flags.DEFINE_enum(
    "space", "data", ["data", "scan"],
    "Compare on the prepared data set's voxels, or on the scan's own, with its label file, as predict does.",
)  # fmt: skip
ALLOW_SEEN = flags.DEFINE_bool(
    "allow_seen", False, "Score test scans that the model was trained on, too; without it they are refused by name."
)
DISTANCES = evaluation_flags.define_distances()
TILES = evaluation_flags.define_tiles()
for module in (evaluation_flags, cluster_flags, compilation_flags):
    flags.adopt_module_key_flags(module)  # so that --help lists them


def main() -> None:
    """Parse the flags, score, and print the summary."""
    cluster_flags.start()
    run, name, root = cli.run_folder(cli.required(RUN)), cli.required(DATASET), cli.store(cli.required(STORE))
    compilation_flags.use_cache()
    saved = load_shared_model(run)
    store = open_named_store(root, name)
    tiles, bar = evaluation_flags.tiles(TILES), processes.is_chief()
    with hold_run(run):
        if isinstance(store, SliceStore):
            if DISTANCES.value:
                raise InputError(f"--distances goes with volumes, and {store.where} holds slices: leave it out.")
            entries = assess_slices(
                run, saved, store, split=SPLIT.value, progress=bar, allow_seen=ALLOW_SEEN.value,
                space=evaluation_flags.space(SPACE),
            )  # fmt: skip
        else:
            title = store.spec.name + ("" if SPLIT.value == "test" else f"_{SPLIT.value}")
            title += "_scan" if SPACE.value == "scan" else ""
            entries = {
                title: assess(
                    run, saved, store, split=SPLIT.value, distances=DISTANCES.value, tiles=tiles,
                    space=evaluation_flags.space(SPACE), progress=bar, allow_seen=ALLOW_SEEN.value,
                )
            }  # fmt: skip
    processes.say(format_summary(entries))
    entry = next(iter(entries.values()))
    seen = entry["seen_in_training"]
    if seen:
        processes.say(
            f"warning: {len(seen)} of these scans were trained on ({', '.join(seen[:5])}): "
            "the score says little about new scans."
        )
    if entry["synthetic"]:
        processes.say("These are drawn, not scanned: the scores mean nothing for patients.")
    processes.say(f"run: {run}")


if __name__ == "__main__":
    cli.run(main)
