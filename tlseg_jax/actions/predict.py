"""Segment raw scans, a single one or many, each in its own space and once."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tlseg_jax.actions import places, there
from tlseg_jax.actions.model import Model, scan_files
from tlseg_jax.checkpoints.shipped import shipped_model
from tlseg_jax.evaluate.label_map import SAME, check_output
from tlseg_jax.evaluate.predict import Prediction
from tlseg_jax.evaluate.predict_folder import predict_folder
from tlseg_jax.evaluate.predict_once import Once, Outcome
from tlseg_jax.evaluate.trust.verdict import Verdict
from tlseg_jax.preprocess.layouts.found import check_any
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.reading.formats import extension_of, is_dicom_folder, is_read
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import make_folder
from tlseg_jax.runtime.messages import log


@dataclasses.dataclass(frozen=True)
class Which:
    """Which model predicts.

    Attributes:
      run: folder of a run that has trained, folder that 'tlseg export' made, or the model.stablehlo in one; of several
        (A,B,C, or the ensemble.json of a sweep) the mean probability counts.
      model: a model that comes with the package, such as brain, in place of run.
    """

    run: str | None = None
    model: str | None = None


@dataclasses.dataclass(frozen=True)
class Predicting:
    """Which scans are segmented, and what is written.

    Attributes:
      input: a scan (a file, or a folder of one DICOM series), or a folder or CSV list of scans.
      output: the label map to write (.nii.gz, .nii, .mgz, .nrrd, .mha), or a folder for several scans.
      format: of the label maps of several scans: NIfTI, or each as its scan (NIfTI for DICOM and .hdr/.img).
      mask: brain mask on the same grid as the single scan, where there is one.
      overwrite: replace label maps and volumes.csv that are there, whoever wrote or changed them.
      probabilities: write the structures' probabilities, too: a 4D NIfTI file beside each label map.
    """

    input: Path
    output: Path
    format: Literal["nifti", "same"] = "nifti"
    mask: Path | None = None
    overwrite: bool = False
    probabilities: bool = False


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What became of the scans.

    Attributes:
      outcomes: one a scan; those with a `problem` have no label map.
      unread: names of what is among several scans and cannot be read; the reasons were told.
    """

    outcomes: tuple[Outcome, ...]
    unread: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises InputError: something was not segmented; it is named."""
        names = [*(o.subject for o in self.outcomes if o.problem), *self.unread]
        if names:
            raise InputError(f"{len(names)} scan(s) were not segmented ({', '.join(names)}): see the reasons above.")


def model_folders(which: Which) -> list[Path]:
    """The folders of the networks that are meant.

    Raises:
      InputError: none or two models are named, or one is not there.
    """
    if which.model and which.run:
        raise InputError("`model` and `run` are two models: give one.")
    if which.model:
        return [shipped_model(which.model)]
    if not which.run:
        raise InputError("`run` is missing: see `help`.")
    return places.run_folders(which.run)


def predict(model: Model, asked: Predicting, name: str = "") -> Predicted:
    """Segment scans, write label maps, and tell the volumes; what is there of the same scan and model stays.

    Args:
      name: of the model, in the page of trust; none: its folders'.

    Raises:
      InputError: an input or the output is not usable, or would replace what is not ours.
    """
    there.check("predict", vars(asked))
    if (asked.input.is_dir() and not is_dicom_folder(asked.input)) or asked.input.suffix.lower() == ".csv":
        return _several(model, asked, name)
    return Predicted((_one(model, asked),))


def _one(model: Model, asked: Predicting) -> Outcome:
    files, output = scan_files(asked.input, asked.mask), asked.output
    suffix = check_output(files, output)  # before the work, not after it
    wanted = SAME[extension_of(asked.input)] if is_read(asked.input) else suffix
    if asked.format == "same" and suffix != wanted:
        raise InputError(f"`format=same` and `output={output}` contradict each other: end it with {wanted}.")
    once = Once(_telling(model), model.identity, asked.overwrite, asked.probabilities, model.trust is not None)
    make_folder(output.parent)
    once.check([output])
    try:
        made = once.make(files, output)
    except ExclusionError as e:
        raise InputError(str(e)) from None
    if made.warning:
        log.warning(f"warning: {made.warning}")
    values = model.structures
    names = [f"{s} (value {v})" if len(values) > 1 else s for s, v in values.items()]
    ml = (f"{n} {v:.2f} ml" for n, v in zip(names, made.volumes_ml.values(), strict=True))
    log.info(f"{output}: " + ", ".join(ml))
    if made.verdict is not None:
        _tell(made.verdict)
    if not made.anew:
        log.info("It was there already, of the same scan by the same model, and was left as it is.")
    return made


def _telling(model: Model) -> Callable[[ScanFiles], Prediction]:
    """What segments, and tells before its first scan, which takes longest, what is being waited for."""
    told = False

    def segment(files: ScanFiles) -> Prediction:
        nonlocal told
        if not told:
            told = True
            registered = ", registered to the standard head" if model.registers else ""
            log.info(
                f"segmenting {files.image}: it is read{registered} and sent through the network, which is compiled "
                "before its first scan."
            )
        return model.segment(files)

    return segment


def _tell(verdict: Verdict) -> None:
    """A verdict on one scan as lines."""
    for name, s in verdict.structures.items():
        expected = "" if s.predicted is None else f"predicted Dice {s.predicted:.2f}, "
        flag = "  <- look at it" if s.flagged else ""
        log.info(f"  {name}: {expected}agreement {s.agreement:.2f}, {s.low_ml:.2f} to {s.high_ml:.2f} ml{flag}")
    if verdict.review:
        log.info("review: " + "; ".join(verdict.reasons))
    if verdict.unlike:
        log.info("unlike the known scans, in standard deviations: " + "; ".join(verdict.unlike))
    if not verdict.review and not verdict.unlike:
        log.info("nothing stands out")


def _several(model: Model, asked: Predicting, name: str) -> Predicted:
    if asked.mask:
        raise InputError("`mask` goes with a single scan: for several, list the masks in a CSV.")
    found = find_scans(asked.input, need_label=False)
    check_any(len(found.scans), found.exclusions, asked.input)
    judged = model.trust is not None
    page = functools.partial(_page, scans={f.subject: f for f in found.scans}, model=model, name=name)
    outcomes = predict_folder(
        found.scans,
        asked.output,
        _telling(model),
        model=model.identity,
        overwrite=asked.overwrite,
        same=asked.format == "same",
        probabilities=asked.probabilities,
        trust=judged,
        page=page if judged else None,
        progress=processes.is_chief(),
    )
    made = [o for o in outcomes if not o.problem]
    log.info(f"{len(made)} of {len(outcomes)} scans segmented; volumes in {asked.output / 'volumes.csv'}")
    if there := sum(not o.anew for o in outcomes):
        log.info(f"{there} of them were there already, of the same scan by the same model, and were left as they are.")
    if judged:
        from tlseg_jax.report.trust_page import summary

        log.info(f"{summary(outcomes)}; the worst first in {asked.output / 'trust.html'}")
    for e in found.exclusions:
        log.warning(f"excluded: {e.subject}: {e.reason}")
    return Predicted(outcomes, tuple(e.subject for e in found.exclusions))


def _page(path: Path, outcomes: Sequence[Outcome], scans: Mapping[str, ScanFiles], model: Model, name: str) -> None:
    from tlseg_jax.report.trust_page import write_trust_page  # here, as viewers take a second to import

    assert model.trust is not None
    c, networks = model.trust.calibration, len(model.saved)
    facts = {
        "model": name or ", ".join(f.name for f in model.folders),
        "structures": model.spec.shown,
        "passes": f"{len(model.trust.passes)} of {networks} network{'s' if networks > 1 else ''}",
        "calibrated on": f"{c.scans} scans of {c.persons} persons" if c else "nothing",
    }
    write_trust_page(path, outcomes, scans, c, facts, model.synthetic)
