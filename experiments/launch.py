"""Rehearse a run of several hosts on one machine: the same command in several processes, each with its own devices.

    python -m experiments.launch --hosts=2 --devices_per_host=2 -- python -m experiments.finetune --pretask=none ...

The processes find one another by their environment, as on a cluster. Their lines have their number in front.
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("launch")
