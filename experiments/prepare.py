"""Prepare a data set: scans and labels to the arrays that training reads.

Usage: python -m experiments.prepare --dataset=hdt_c --source=DIR --store=DIR --label_values=36,37 --spacing=2
       python -m experiments.prepare --dataset=lits --source=DIR --store=DIR
       python -m experiments.prepare ... --shard=0/4    # one of four jobs; they merge, whichever ends last
       python -m experiments.prepare --join=hdt_c,hdt_v --name=both --store=DIR
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("prepare")
