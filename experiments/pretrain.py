"""Pre-train a network on a task with plenty of labels.

python -m experiments.pretrain --pretask=hdt_v [--store=DIR] [--workdir=runs] [--steps=600]
"""

from absl import flags

from experiments import cli, cluster_flags, compilation_flags, execution_flags, training_flags
from tlseg_jax.checkpoints.run_folder import own_folder
from tlseg_jax.studies import runs as study
from tlseg_jax.studies.workplace import named_spec, open_store
from tlseg_jax.train.job_record import run_settings

PRETASK = flags.DEFINE_string(
    "pretask", None, "What to learn: hdt_v, hdt_wb, mal_c, hdt_c, lits, a data set of the store, or a TOML file."
)
N = flags.DEFINE_integer("n", None, "Labelled scans to train on; none: all of the training set.")

for module in (training_flags, execution_flags, cluster_flags):
    flags.adopt_module_key_flags(module)  # so that --help lists them


def main() -> None:
    """Parse the flags, train and score."""
    cluster_flags.start()
    pretask = cli.required(PRETASK)
    execution = execution_flags.execution()
    compilation_flags.use_cache()
    place = training_flags.workplace()
    spec = named_spec(place, pretask)
    job = training_flags.job(
        spec, "pretrain", training_flags.STEPS.value, epochs=training_flags.EPOCHS.value, n=N.value
    )
    parts = [spec.name] if N.value is None else [spec.name, f"n{N.value}"]
    folder = place.workdir / "pretrain" / training_flags.run_name(spec, *parts)
    store = open_store(place, spec)
    folder = own_folder(folder, run_settings(store, job, None), place.say)
    study.pretrain(place, pretask, job, folder, execution, store)


if __name__ == "__main__":
    cli.run(main)
