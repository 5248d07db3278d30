"""Make a folder to hand on of a trained run: checkpoint, StableHLO program and card.

python -m experiments.export --run=runs/finetune/NAME --output=model --licence="CC BY 4.0"
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("export")
