"""Write the reports of sweeps: one HTML page a study, with figures and tables, and a tab for each structure.

    python -m experiments.report --workdir=DIR [--study=NAME] [--output=DIR] [--viewers=6] [--compare=NAME:FILE,...]

Without --study, of every study that was swept in the workdir, finished or not.
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("report")
