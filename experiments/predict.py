"""Segment raw scans with a trained run or an exported model, in each scan's own space.

python -m experiments.predict --model=brain --input=scan.nii.gz --output=seg.nii.gz    # comes with the package
python -m experiments.predict --run=runs/finetune/NAME --input=scan.nii.gz --output=seg.nii.gz
python -m experiments.predict --run=runs/finetune/NAME --input=DIR --output=DIR
python -m experiments.predict --run=MODEL --input=scan.nii.gz --output=seg.nii.gz    # of experiments.export
python -m experiments.predict --run=MODEL/model.stablehlo --input=scan.nii.gz --output=seg.nii.gz
python -m experiments.predict --run=RUN,RUN,RUN --input=DIR --output=DIR --trust    # and trust.html, the worst first
"""

from tlseg_jax.commands import main

if __name__ == "__main__":
    main.start("predict")
