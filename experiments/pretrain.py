"""Pre-train a network on a task with plenty of labels.

python -m experiments.pretrain --pretask=hdt_v [--store=DIR] [--workdir=runs] [--steps=600]
"""

from tlseg_jax.commands import cli, pretrain

if __name__ == "__main__":
    cli.start(pretrain)
