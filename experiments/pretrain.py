"""Pre-train a network on a task with plenty of labels.

python -m experiments.pretrain --pretask=hdt_v [--store=DIR] [--workdir=runs] [--steps=600]
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("pretrain")
