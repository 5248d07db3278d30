"""Pre-train a network on a task with plenty of labels.

python -m experiments.pretrain --pretask=hdt_v [--store=DIR] [--workdir=runs] [--steps=600]
"""

from absl import flags

from experiments import cli, training_flags
from tlseg_jax.datasets.spec import get_spec
from tlseg_jax.transfer import study

PRETASK = flags.DEFINE_string("pretask", None, "What to learn: hdt_v, hdt_wb, mal_c, hdt_c, or a TOML file.")
N = flags.DEFINE_integer("n", None, "Labelled scans to train on; none: all of the training set.")

flags.adopt_module_key_flags(training_flags)  # so that --help lists them

def main() -> None:
    """Parse the flags, train and score."""
    pretask = cli.required(PRETASK)
    name = get_spec(pretask).name
    place = training_flags.workplace()
    job = training_flags.job("pretrain", training_flags.STEPS.value, n=N.value)
    parts = [name] if N.value is None else [name, f"n{N.value}"]
    folder = place.workdir / "pretrain" / training_flags.run_name(*parts)
    study.pretrain(place, pretask, job, folder)


if __name__ == "__main__":
    cli.run(main)
