"""Score a trained run on a prepared data set.

python -m experiments.evaluate --run=runs/finetune/NAME --dataset=oas_c --store=DIR
python -m experiments.evaluate --run=runs/finetune/NAME --dataset=oas_c --store=DIR --trust --space=scan
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("evaluate")
