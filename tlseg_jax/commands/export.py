"""Make a folder to hand on of a trained run: checkpoint, StableHLO program and card.

tlseg export --run=runs/finetune/NAME --output=model --licence="CC BY 4.0"
"""

from tlseg_jax.actions.export import Exporting, export
from tlseg_jax.commands import cluster_flags, flags

ASKED = flags.define(Exporting)


def main() -> None:
    """Parse the flags, export, and say what is there."""
    cluster_flags.refuse("export once, where the run can be read")
    export(ASKED.settings())
