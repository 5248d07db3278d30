"""Segment raw scans with a trained run or an exported model, in each scan's own space.

python -m experiments.predict --model=brain --input=scan.nii.gz --output=seg.nii.gz    # comes with the package
python -m experiments.predict --run=runs/finetune/NAME --input=scan.nii.gz --output=seg.nii.gz
python -m experiments.predict --run=runs/finetune/NAME --input=DIR --output=DIR
python -m experiments.predict --run=MODEL --input=scan.nii.gz --output=seg.nii.gz    # of experiments.export
python -m experiments.predict --run=MODEL/model.stablehlo --input=scan.nii.gz --output=seg.nii.gz
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, cluster_flags, compilation_flags
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.checkpoints.shipped import shipped_model, shipped_names
from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.evaluate.forest_file import load_forest
from tlseg_jax.evaluate.label_map import SAME, check_output, make_folder
from tlseg_jax.evaluate.predict import Prediction, own_values, predict_scan
from tlseg_jax.evaluate.predict_folder import predict_folder
from tlseg_jax.evaluate.predict_once import Once
from tlseg_jax.export.load import AnyModel, load_any_model
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.layouts.layouts import find_scans, no_subject_left
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.reading.formats import extension_of, is_dicom_folder, is_read, stem_of
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.written import file_digest
from tlseg_jax.studies.workplace import Workplace

RUN = flags.DEFINE_string(
    "run", None, "Folder of a run that has trained, folder that experiments.export made, or the model.stablehlo in one."
)
MODEL = flags.DEFINE_string(
    "model", None, f"A model that comes with the package, in place of --run: {', '.join(shipped_names())}."
)
INPUT = flags.DEFINE_string(
    "input", None, "A scan (a file, or a folder of one DICOM series), or a folder or CSV list of scans."
)
OUTPUT = flags.DEFINE_string(
    "output", None, "The label map to write (.nii.gz, .nii, .mgz, .nrrd, .mha), or a folder for several scans."
)
FORMAT = flags.DEFINE_enum(
    "format",
    "nifti",
    ["nifti", "same"],
    "Of the label maps of several scans: NIfTI, or each as its scan (NIfTI for DICOM and .hdr/.img).",
)
MASK = flags.DEFINE_string("mask", None, "Brain mask on the same grid as the single scan, where there is one.")
POSTPROCESS = flags.DEFINE_bool(
    "postprocess", False, "2D runs: drop components that the run's forest (experiments.postprocess) takes to be false."
)
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace label maps and volumes.csv that are there, whoever wrote or changed them."
)
PROBABILITIES = flags.DEFINE_bool(
    "probabilities", False, "Write the structures' probabilities, too: a 4D NIfTI file beside each label map."
)
HOW = settings_flags.define(Workplace, only=("clean", "tiles", "adabn"))
settings_flags.adopt(compilation_flags)
REGISTRATION = flags.DEFINE_enum(
    "registration",
    None,
    ["auto", "skip"],
    "skip: the scans are in the data set's space already; none: as in the run's preprocessing.",
)


def main() -> None:
    """Parse the flags, predict, and say the volumes."""
    cluster_flags.refuse("predict other scans in each, such as by an array of jobs")
    if MODEL.value and RUN.value:
        raise InputError("--model and --run are two models: give one.")
    run = shipped_model(MODEL.value) if MODEL.value else cli.run_folder(cli.required(RUN))
    source, output = Path(cli.required(INPUT)), Path(cli.required(OUTPUT))
    compilation_flags.use_cache()
    saved = load_any_model(run)
    if saved.description["synthetic"]:
        print("warning: this model has only seen synthetic scans: its output on a real scan means nothing.")
    segment = _segmenter(run, saved)
    forest = file_digest(run / "postprocess" / "forest.json") if POSTPROCESS.value else None
    tiles = HOW.value("tiles")
    model = {"digest": saved.digest, "tiles": tiles, "registration": REGISTRATION.value, "forest": forest}
    model |= {"clean": HOW.value("clean")}
    if adabn := HOW.value("adabn"):
        model["adabn"] = adabn
    if not source.exists():
        raise InputError(f"--input={source} does not exist: check the path.")
    if (source.is_dir() and not is_dicom_folder(source)) or source.suffix.lower() == ".csv":
        _folder(source, output, segment, model)
        return
    files = ScanFiles(stem_of(source) or source.name, source, mask=Path(MASK.value) if MASK.value else None)
    suffix = check_output(files, output)  # before the work, not after it
    wanted = SAME[extension_of(source)] if is_read(source) else suffix
    if FORMAT.value == "same" and suffix != wanted:
        raise InputError(f"--format=same and --output={output} contradict each other: end it with {wanted}.")
    once = Once(segment, model, OVERWRITE.value, PROBABILITIES.value)
    make_folder(output.parent)
    once.check([output])
    try:
        made = once.make(files, output)
    except ExclusionError as e:
        raise InputError(str(e)) from None
    for w in made.warnings:
        cli.show(f"warning: {w}")
    spec = spec_from_dict(saved.description["spec"], str(run))
    values = own_values(spec.structures, spec.label_values, spec.exclusive)
    names = [f"{s} (value {v})" if len(values) > 1 else s for s, v in zip(spec.structures, values, strict=True)]
    print(f"{output}: " + ", ".join(f"{n} {ml:.2f} ml" for n, ml in zip(names, made.volumes_ml.values(), strict=True)))
    if not made.anew:
        print("It was there already, of the same scan by the same model, and was left as it is.")


def _segmenter(run: Path, saved: AnyModel) -> Callable[[ScanFiles], Prediction]:
    """A network with the preprocessing of its training data, and, of a 2D one, the forest of `postprocess` if asked."""
    d = saved.description
    spec, predictor, tiles = (
        spec_from_dict(d["spec"], str(run)),
        saved.predictor(HOW.value("adabn")),
        HOW.value("tiles"),
    )
    smallest = d.get("smallest_pieces") if HOW.value("clean") else None
    if spec.kind == "slices":
        for flag in (MASK, REGISTRATION):
            if flag.value:
                raise InputError(f"--{flag.name} goes with 3D runs, and {run} is 2D: leave it out.")
        forest, cleaned = None, ""
        if POSTPROCESS.value:
            if HOW.value("adabn"):
                raise InputError(
                    "--postprocess goes by a forest that learnt from predictions without --adabn: give one."
                )
            if saved.kind != "run":
                raise InputError(f"--postprocess goes with run folders, as {run} holds no forest: leave it out.")
            folder = run / "postprocess"
            forest, cleaned = load_forest(folder), str(read_json(folder / "effect.json")["structure"])
        return functools.partial(
            predict_scan,
            spec=spec,
            box=None,
            settings=None,
            predictor=predictor,
            channels=saved.config.channels,
            forest=forest,
            cleaned=cleaned,
            smallest=smallest,
        )
    if POSTPROCESS.value:
        raise InputError(f"--postprocess goes with 2D runs, and {run} is 3D: leave it out.")
    box = Box.from_dict(d["patch_box"]) if d["patch_box"] else None
    settings = PrepareSettings.from_dict(d["prepare"])
    if REGISTRATION.value:
        settings = PrepareSettings.from_dict(settings.to_dict() | {"registration": REGISTRATION.value})
    return functools.partial(
        predict_scan, spec=spec, box=box, settings=settings, predictor=predictor, tiles=tiles, smallest=smallest
    )


def _folder(source: Path, output: Path, segment: Callable[[ScanFiles], Prediction], model: dict[str, Any]) -> None:
    if MASK.value:
        raise InputError("--mask goes with a single scan: for several, list the masks in a CSV.")
    found = find_scans(source, need_label=False)
    if not found.scans:
        raise no_subject_left(source, found.exclusions)
    same = FORMAT.value == "same"
    outcomes = predict_folder(
        found.scans,
        output,
        segment,
        model=model,
        overwrite=OVERWRITE.value,
        same=same,
        probabilities=PROBABILITIES.value,
    )
    failed = [o for o in outcomes if o.problem]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} scans segmented; volumes in {output / 'volumes.csv'}")
    there = sum(not o.anew for o in outcomes)
    if there:
        print(f"{there} of them were there already, of the same scan by the same model, and were left as they are.")
    unread = found.exclusions
    for e in unread:
        cli.show(f"excluded: {e.subject}: {e.reason}")
    if failed or unread:
        names = ", ".join([o.subject for o in failed] + [e.subject for e in unread])
        raise InputError(f"{len(failed) + len(unread)} scan(s) were not segmented ({names}): see the reasons above.")


if __name__ == "__main__":
    cli.run(main)
