"""Segment raw scans with a trained run or an exported model, in each scan's own space.

tlseg predict --model=brain --input=scan.nii.gz --output=seg.nii.gz    # comes with the package
tlseg predict --run=runs/finetune/NAME --input=scan.nii.gz --output=seg.nii.gz
tlseg predict --run=runs/finetune/NAME --input=DIR --output=DIR
tlseg predict --run=MODEL --input=scan.nii.gz --output=seg.nii.gz    # of tlseg export
tlseg predict --run=MODEL/model.stablehlo --input=scan.nii.gz --output=seg.nii.gz
tlseg predict --run=RUN,RUN,RUN --input=DIR --output=DIR --trust    # and trust.html, the worst first
"""

from tlseg_jax.actions.model import Inferring, Model
from tlseg_jax.actions.predict import Predicting, Which, model_folders, predict
from tlseg_jax.commands import cluster_flags, compilation_flags, flags
from tlseg_jax.studies.workplace import Workplace

WHICH = flags.define(Which)
WHAT = flags.define(Predicting)
HOW = flags.define(Inferring, only=("postprocess", "trust", "passes", "registration"))
MEASURED = flags.define(Workplace, only=("clean", "tiles", "tta", "adabn"))
flags.adopt(compilation_flags)


def main() -> None:
    """Parse the flags, predict, and say the volumes."""
    cluster_flags.refuse("predict other scans in each, such as by an array of jobs")
    which = WHICH.settings()
    folders, asked = model_folders(which), WHAT.settings()
    compilation_flags.set_up_jax()
    model = Model.of(folders, HOW.settings(**MEASURED.values()))
    predict(model, asked, which.model or "").check()
