"""Segment raw scans with a trained run or an exported model, in each scan's own space.

python -m experiments.predict --model=brain --input=scan.nii.gz --output=seg.nii.gz    # comes with the package
python -m experiments.predict --run=runs/finetune/NAME --input=scan.nii.gz --output=seg.nii.gz
python -m experiments.predict --run=runs/finetune/NAME --input=DIR --output=DIR
python -m experiments.predict --run=MODEL --input=scan.nii.gz --output=seg.nii.gz    # of experiments.export
python -m experiments.predict --run=MODEL/model.stablehlo --input=scan.nii.gz --output=seg.nii.gz
python -m experiments.predict --run=RUN,RUN,RUN --input=DIR --output=DIR --trust    # and trust.html, the worst first
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import cli, cluster_flags, compilation_flags
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.checkpoints.shipped import shipped_model, shipped_names
from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import Predictor
from tlseg_jax.evaluate.label_map import SAME, check_output, make_folder
from tlseg_jax.evaluate.predict import Prediction, own_values, predict_scan
from tlseg_jax.evaluate.predict_folder import Outcome, predict_folder
from tlseg_jax.evaluate.predict_once import Once
from tlseg_jax.evaluate.trust.passes import COUNT, make_passes, may_mirror
from tlseg_jax.evaluate.trust.together import check_alike
from tlseg_jax.evaluate.trust.trust_file import load_calibration
from tlseg_jax.evaluate.trust.trusting import Trust
from tlseg_jax.evaluate.trust.verdict import Verdict
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
    "run",
    None,
    "Folder of a run that has trained, folder that experiments.export made, or the model.stablehlo in one; of several "
    "(A,B,C, or the ensemble.json of a sweep) the mean probability counts.",
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
TRUST = flags.DEFINE_bool(
    "trust",
    False,
    "Say how far each prediction is to be believed: several passes, their agreement, predicted Dice, volumes with an "
    "interval, and what to review; of a folder a page, trust.html. experiments.evaluate --trust calibrates it.",
)
PASSES = flags.DEFINE_integer(
    "passes", None, f"Passes of each network, with --trust; default: those of its calibration, else {COUNT}."
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
    runs = [shipped_model(MODEL.value)] if MODEL.value else cli.run_folders(cli.required(RUN))
    source, output = Path(cli.required(INPUT)), Path(cli.required(OUTPUT))
    compilation_flags.use_cache()
    models = Models(runs, [load_any_model(run) for run in runs])
    if any(m.description["synthetic"] for m in models.saved):
        print("warning: this model has only seen synthetic scans: its output on a real scan means nothing.")
    trust = _trust(models)
    segment = _segmenter(models, trust)
    forest = file_digest(runs[0] / "postprocess" / "forest.json") if POSTPROCESS.value else None
    tiles = HOW.value("tiles")
    digests = [m.digest for m in models.saved]
    model: dict[str, Any] = {"digest": digests[0] if len(digests) == 1 else digests, "tiles": tiles}
    model |= {"registration": REGISTRATION.value, "forest": forest, "clean": HOW.value("clean")}
    if adabn := HOW.value("adabn"):
        model["adabn"] = adabn
    if trust is not None:
        calibration = None if trust.calibration is None else trust.calibration.digest
        model |= {"passes": len(trust.passes), "calibration": calibration}
    if not source.exists():
        raise InputError(f"--input={source} does not exist: check the path.")
    if (source.is_dir() and not is_dicom_folder(source)) or source.suffix.lower() == ".csv":
        _folder(source, output, segment, model, models, trust)
        return
    files = ScanFiles(stem_of(source) or source.name, source, mask=Path(MASK.value) if MASK.value else None)
    suffix = check_output(files, output)  # before the work, not after it
    wanted = SAME[extension_of(source)] if is_read(source) else suffix
    if FORMAT.value == "same" and suffix != wanted:
        raise InputError(f"--format=same and --output={output} contradict each other: end it with {wanted}.")
    once = Once(segment, model, OVERWRITE.value, PROBABILITIES.value, trust is not None)
    make_folder(output.parent)
    once.check([output])
    try:
        made = once.make(files, output)
    except ExclusionError as e:
        raise InputError(str(e)) from None
    for w in made.warnings:
        cli.show(f"warning: {w}")
    spec = models.spec
    values = own_values(spec.structures, spec.label_values, spec.exclusive)
    names = [f"{s} (value {v})" if len(values) > 1 else s for s, v in zip(spec.structures, values, strict=True)]
    print(f"{output}: " + ", ".join(f"{n} {ml:.2f} ml" for n, ml in zip(names, made.volumes_ml.values(), strict=True)))
    if made.verdict is not None:
        _show(made.verdict)
    if not made.anew:
        print("It was there already, of the same scan by the same model, and was left as it is.")


@dataclasses.dataclass(frozen=True)
class Models:
    """What predicts, together.

    Attributes:
      folders: where from.
      saved: the models.
    """

    folders: Sequence[Path]
    saved: Sequence[AnyModel]

    def __post_init__(self) -> None:
        if HOW.value("adabn") and (TRUST.value or len(self.saved) > 1):
            raise InputError(
                "--adabn goes with one model and no --trust, whose calibration is without it: leave one out."
            )
        check_alike(self.saved, self.folders)
        if len({m.weights for m in self.saved}) < len(self.saved):
            raise InputError("--run names one model twice: name each once.")

    @functools.cached_property
    def spec(self) -> DatasetSpec:
        """What they were trained on."""
        return spec_from_dict(self.saved[0].description["spec"], str(self.folders[0]))

    @functools.cached_property
    def predictors(self) -> list[Predictor]:
        """Each network."""
        return [m.predictor(HOW.value("adabn")) for m in self.saved]

    @functools.cached_property
    def together(self) -> Predictor:
        """The mean of all."""
        if len(self.predictors) == 1:
            return self.predictors[0]
        return lambda patches: np.asarray(np.mean([p(patches) for p in self.predictors], 0), np.float32)

    @property
    def home(self) -> Path:
        """The folder that the first one's calibration lies in."""
        return self.folders[0] if self.folders[0].is_dir() else self.folders[0].parent


def _trust(models: Models) -> Trust | None:
    """What predictions are judged with; None: they are not."""
    if not TRUST.value:
        if PASSES.value is not None:
            raise InputError("--passes goes with --trust: give both, or leave it out.")
        return None
    calibration = load_calibration(models.home, [m.weights for m in models.saved])
    if calibration is None:
        together = " together" if len(models.saved) > 1 else ""
        print(
            f"warning: {models.home} holds no calibration of these weights{together}, so the passes' agreement is "
            "told, which is no Dice to expect: calibrate it with experiments.evaluate --trust."
        )
    elif PASSES.value not in (None, calibration.passes):
        raise InputError(
            f"--passes={PASSES.value}: the calibration in {models.home} is of {calibration.passes} passes: leave "
            f"--passes out, or calibrate with experiments.evaluate --trust --passes={PASSES.value}."
        )
    count = PASSES.value or (calibration.passes if calibration else COUNT)
    passes = make_passes(count, calibration.seed if calibration else 0, may_mirror(models.spec))
    return Trust(models.predictors, passes, calibration)


def _show(verdict: Verdict) -> None:
    """A verdict on one scan as lines."""
    for name, s in verdict.structures.items():
        expected = "" if s.predicted is None else f"predicted Dice {s.predicted:.2f}, "
        flag = "  <- look at it" if s.flagged else ""
        print(f"  {name}: {expected}agreement {s.agreement:.2f}, {s.low_ml:.2f} to {s.high_ml:.2f} ml{flag}")
    if verdict.review:
        print("review: " + "; ".join(verdict.reasons))
    if verdict.unlike:
        print("unlike the known scans, in standard deviations: " + "; ".join(verdict.unlike))
    if not verdict.review and not verdict.unlike:
        print("nothing stands out")


def _segmenter(models: Models, trust: Trust | None) -> Callable[[ScanFiles], Prediction]:
    """A network with the preprocessing of its training data, and, of a 2D one, the forest of `postprocess` if asked."""
    run, saved = models.folders[0], models.saved[0]
    d = saved.description
    spec, predictor, tiles = models.spec, models.together, HOW.value("tiles")
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
            from tlseg_jax.evaluate.forest_file import load_forest  # what it is kept with is slow to import

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
            trust=trust,
        )
    if POSTPROCESS.value:
        raise InputError(f"--postprocess goes with 2D runs, and {run} is 3D: leave it out.")
    box = Box.from_dict(d["patch_box"]) if d["patch_box"] else None
    settings = PrepareSettings.from_dict(d["prepare"])
    if REGISTRATION.value:
        settings = PrepareSettings.from_dict(settings.to_dict() | {"registration": REGISTRATION.value})
    return functools.partial(
        predict_scan,
        spec=spec,
        box=box,
        settings=settings,
        predictor=predictor,
        tiles=tiles,
        smallest=smallest,
        trust=trust,
    )


def _folder(
    source: Path,
    output: Path,
    segment: Callable[[ScanFiles], Prediction],
    model: dict[str, Any],
    models: Models,
    trust: Trust | None,
) -> None:
    if MASK.value:
        raise InputError("--mask goes with a single scan: for several, list the masks in a CSV.")
    found = find_scans(source, need_label=False)
    if not found.scans:
        raise no_subject_left(source, found.exclusions)
    same = FORMAT.value == "same"
    page = None
    if trust is not None:
        page = functools.partial(_page, scans={f.subject: f for f in found.scans}, models=models, trust=trust)
    outcomes = predict_folder(
        found.scans,
        output,
        segment,
        model=model,
        overwrite=OVERWRITE.value,
        same=same,
        probabilities=PROBABILITIES.value,
        trust=trust is not None,
        page=page,
    )
    failed = [o for o in outcomes if o.problem]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} scans segmented; volumes in {output / 'volumes.csv'}")
    there = sum(not o.anew for o in outcomes)
    if there:
        print(f"{there} of them were there already, of the same scan by the same model, and were left as they are.")
    if trust is not None:
        from tlseg_jax.report.trust_page import summary

        print(f"{summary(outcomes)}; the worst first in {output / 'trust.html'}")
    unread = found.exclusions
    for e in unread:
        cli.show(f"excluded: {e.subject}: {e.reason}")
    if failed or unread:
        names = ", ".join([o.subject for o in failed] + [e.subject for e in unread])
        raise InputError(f"{len(failed) + len(unread)} scan(s) were not segmented ({names}): see the reasons above.")


def _page(
    path: Path, outcomes: Sequence[Outcome], scans: Mapping[str, ScanFiles], models: Models, trust: Trust
) -> None:
    from tlseg_jax.report.trust_page import write_trust_page  # here, as viewers take a second to import

    c = trust.calibration
    facts = {
        "model": MODEL.value or ", ".join(f.name for f in models.folders),
        "structures": models.spec.shown,
        "passes": f"{len(trust.passes)} of {len(models.saved)} network{'s' if len(models.saved) > 1 else ''}",
        "calibrated on": f"{c.scans} scans of {c.persons} persons" if c else "nothing",
    }
    write_trust_page(path, outcomes, scans, c, facts, any(m.description["synthetic"] for m in models.saved))


if __name__ == "__main__":
    cli.run(main)
