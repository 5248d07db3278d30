"""Score a trained run on a prepared data set.

python -m experiments.evaluate --run=runs/finetune/NAME --dataset=oas_c --store=DIR
"""

import dataclasses
from typing import Literal

from experiments import cli, cluster_flags, compilation_flags
from tlseg_jax.checkpoints.run_folder import hold_run
from tlseg_jax.commands import flags
from tlseg_jax.commands.settings import Named
from tlseg_jax.evaluate.readers import ScoreSpace
from tlseg_jax.evaluate.results import format_summary
from tlseg_jax.preprocess.store.any_store import open_named_store
from tlseg_jax.runtime import processes
from tlseg_jax.studies.assess import assess
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.shared_model import load_shared_model


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Which scans are scored, and where.

    Attributes:
      split: which subjects.
      space: volumes: compare on the prepared data set's voxels, or on the scan's own, with its label file, as predict
        does.
      allow_seen: score test scans that the model was trained on, too; without it they are refused by name.
    """

    split: Literal["test", "train"] = "test"
    space: ScoreSpace = "data"
    allow_seen: bool = False


NAMED = flags.define(Named)
SCORING = flags.define(Scoring)
MEASURED = flags.define(Workplace, only=("distances", "clean", "tiles", "adabn"))
flags.adopt(cluster_flags, compilation_flags)


def main() -> None:
    """Parse the flags, score, and print the summary."""
    cluster_flags.start()
    named, scoring, measured = NAMED.settings(), SCORING.settings(), MEASURED.values()
    run, name, root = cli.run_folder(named.run), named.dataset, cli.store(named.store)
    compilation_flags.use_cache()
    saved = load_shared_model(run)
    store = open_named_store(root, name)
    chief = processes.is_chief()
    with hold_run(run):
        entries = assess(
            run,
            saved,
            store,
            split=scoring.split,
            space=scoring.space,
            progress=chief,
            allow_seen=scoring.allow_seen,
            **measured,
        )
    if chief:
        print(format_summary(entries))
        entry = next(iter(entries.values()))
        seen = entry["seen_in_training"]
        if seen:
            print(
                f"warning: {len(seen)} of these scans were trained on ({', '.join(seen[:5])}): "
                "the score says little about new scans."
            )
        if entry["synthetic"]:
            print("These are drawn, not scanned: the scores mean nothing for patients.")
        print(f"run: {run}")


if __name__ == "__main__":
    cli.run(main)
