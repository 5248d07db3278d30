"""Train and measure the filter of false tumours for a trained 2D run (Chlebus et al. 2018).

python -m experiments.postprocess --run=runs/finetune/NAME --dataset=lits --store=DIR

A random forest learns from the run's predictions on its own training volumes which 3D components are
false, is saved in RUN/postprocess/, and its effect on the test volumes is measured there
(effect.csv, effect.json).
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("postprocess")
