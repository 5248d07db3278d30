"""Run a study: every method by every number of labelled scans by every seed, each cell once, resumable.

    python -m experiments.sweep --study=brain|liver|factors|FILE.toml [--store=DIR] [--workdir=DIR] [--plan]

The cells are in WORKDIR/sweep/NAME, and results.csv there has a row a cell, structure and subject, from which
`python -m experiments.report --workdir=WORKDIR` makes tables, figures and one page.
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("sweep")
