"""Fine-tune a pre-trained network on n labelled scans of the target task, and score it.

    python -m experiments.finetune --pretask=hdt_v --n=16 [--task=hdt_c] [--store=DIR] [--workdir=runs]
    python -m experiments.finetune --pretask=lits --task=mri_artery --freeze=first_two

Makes what is missing (built-in cohort, prepared data, pre-trained model), reuses what is there and is the same,
and says which. `--pretask=none` trains end to end.
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("finetune")
