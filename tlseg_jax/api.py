"""What the commands do, as functions: for notebooks, and for programs of one's own.

    import tlseg_jax as tl

Every setting that a command has as a flag is a keyword of the same name here, and is checked as there: an unknown one,
or a value that it cannot have, is an `InputError` of one sentence, and so is any other fault in what was given. What
the commands print is told here, too, by the logger "tlseg_jax". Nothing ends the process and no flag is read, so that
one program may call all of this as often as it likes.

A list may also be text with commas, as on the command line: label_values="11,50" is label_values=[11, 50].
Paths may be text, a `Path`, or a `Run`; folders of runs and of prepared data may be s3:// or gs:// addresses. The
examples draw small heads in place of scans; what is reached on them says nothing of patients.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from tlseg_jax.actions import places
from tlseg_jax.actions.evaluate import Scoring
from tlseg_jax.actions.evaluate import calibrate as _calibrate
from tlseg_jax.actions.evaluate import evaluate as _evaluate
from tlseg_jax.actions.export import Exporting
from tlseg_jax.actions.export import export as _export
from tlseg_jax.actions.keywords import Keywords
from tlseg_jax.actions.model import Inferring, Model
from tlseg_jax.actions.places import Named
from tlseg_jax.actions.predict import Predicting, Which, model_folders
from tlseg_jax.actions.predict import predict as _predict
from tlseg_jax.actions.prepare import SLICE_FIELDS, Preparing
from tlseg_jax.actions.prepare import prepare as _prepare
from tlseg_jax.actions.run import Run
from tlseg_jax.actions.view import view as _view
from tlseg_jax.datasets.spec import PlaneGrid
from tlseg_jax.evaluate.predict import Prediction
from tlseg_jax.evaluate.predict_once import Outcome
from tlseg_jax.preprocess.reading.scan import ExclusionError
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime.compilation_cache import set_up_jax
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log, shown
from tlseg_jax.studies.choose_study import Sweeping
from tlseg_jax.studies.settings import Finetuning, Missing, Pretraining, Start, Training
from tlseg_jax.studies.single import finetune_task, pretrain_task
from tlseg_jax.studies.study import Study
from tlseg_jax.studies.sweep import Swept
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.recipes import FIXED, Recipe

AnyPath = str | os.PathLike[str]

__all__ = [
    "InputError",
    "Model",
    "Run",
    "evaluate",
    "export",
    "finetune",
    "load",
    "predict",
    "prepare",
    "pretrain",
    "report",
    "sweep",
    "view",
]


def prepare(
    dataset: AnyPath | None = None,
    source: AnyPath | None = None,
    store: AnyPath | None = None,
    *,
    name: str | None = None,
    structures: str | None = None,
    spacing: float | None = None,
    join: Sequence[str] = (),
    **settings: Any,
) -> AnyStore | None:
    """Prepare a data set: scans and labels to the arrays that training reads.

    Examples:
      >>> from tlseg_jax.phantoms.cohort import write_cohort
      >>> from tlseg_jax.datasets.lookup import get_spec
      >>> scans = write_cohort(get_spec("hdt_c"), here / "heads", train=3, test=1, spacing=4.0, progress=False)
      >>> made = prepare("hdt_c", scans, here / "store", spacing=4.0, registration="skip", bias_correction=False)
      >>> made.subjects("test")
      ('hdt-000',)

    Args:
      dataset: a name, such as hdt_c, or a TOML file.
      source: folder of scans and labels, or a CSV file that lists them.
      store: folder that holds the prepared data sets.
      name: of the prepared data set, where it is not the data set's own.
      structures: as in "freesurfer:caudate_left,caudate_right" or "liver:1+2,tumour:2".
      spacing: isotropic voxel size in mm, in place of the data set's.
      join: prepared data sets of the store, in place of dataset and source: makes one of them, called `name`.
      settings: the command's other flags (`actions.prepare.Preparing`, and of slices some of `PlaneGrid`).

    Returns:
      The prepared data set; None of a dry run, and of a shard while others are missing.

    Raises:
      InputError: a setting is missing or not usable, or no scan can be prepared; each reason is told.
    """
    spelled: dict[str, Any] = {
        "dataset": dataset,
        "source": source,
        "store": store,
        "name": name,
        "structures": structures,
    }
    spelled |= {"spacing": spacing, "join": join or None}
    given = {k: v for k, v in spelled.items() if v is not None} | settings
    with _calling("prepare", given, compiles=False) as keywords:
        asked, planes = keywords.settings(Preparing), keywords.given(PlaneGrid, only=SLICE_FIELDS)
        keywords.check()
        return _prepare(asked, planes, given)


def pretrain(
    pretask: AnyPath,
    *,
    store: AnyPath | None = None,
    workdir: AnyPath = "runs",
    n: int | Literal["all"] | None = None,
    steps: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Run:
    """Pre-train a network on a task with plenty of labels, and score it.

    Examples:
      >>> run = pretrain("hdt_c", store=here / "store", workdir=here / "runs", steps=2, progress=False)
      >>> run.summary["task"], len(run.scores)
      ('hdt_c', 1)

    Args:
      pretask: a data set's name, one of the store, or a TOML file.
      store: folder of prepared data sets; None: the built-in synthetic cohort, made where it is missing.
      workdir: folder of the runs.
      n: labelled scans to train on; None: all.
      steps: the most training steps; None: the recipe's.
      seed: of the parameters, the order, the augmentation and the choice of scans.
      settings: the command's other flags (fields of `Training`, `Recipe`, `Workplace` and `Execution`), and progress.

    Returns:
      The run; one of the same settings that is there is reused.

    Raises:
      InputError: the data are missing, or a setting does not go with them.
    """
    with _calling("pretrain", {"pretask": pretask, "n": n, "steps": steps, "seed": seed, **settings}) as keywords:
        what, training = keywords.settings(Pretraining), _training(keywords)
        place, execution = _place(keywords, workdir, store), _execution(keywords)
        keywords.check()
        return Run(pretrain_task(place, what.pretask, training, execution))


def finetune(
    pretask: AnyPath | None = None,
    *,
    task: AnyPath = "hdt_c",
    pretrained: AnyPath | None = None,
    n: int | Literal["all"] | None = None,
    store: AnyPath | None = None,
    workdir: AnyPath = "runs",
    steps: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Run:
    """Fine-tune a pre-trained network on n labelled scans of the target task, and score it.

    Examples:
      >>> place = {"store": here / "store", "workdir": here / "runs", "progress": False}
      >>> start = here / "runs/pretrain/hdt_c-seed0"
      >>> run = finetune(pretrained=start, task="hdt_c", n=2, steps=2, name="mine", **place)
      >>> sorted(run.summary["test_sets"]), run.scores[0]["structure"], 0 <= run.scores[0]["dice"] <= 1
      (['hdt_c'], 'caudate', True)

    Args:
      pretask: what to start from, which is pre-trained where it is missing; "none" trains end to end.
      task: the target: a data set's name, one of the store, or a TOML file.
      pretrained: a run, or the name of a model that comes with the package, such as brain, in place of pretask.
      n: labelled scans to train on; None: all.
      store: see `pretrain`.
      workdir: see `pretrain`.
      steps: see `pretrain`.
      seed: see `pretrain`.
      settings: the command's other flags (fields of `Finetuning`, `Start`, `Missing` and those of `pretrain`).

    Returns:
      The run; one of the same settings that is there is reused.

    Raises:
      InputError: nothing says what to start from, the data are missing, or a setting does not go with them.
    """
    given = {"pretask": pretask, "task": task, "pretrained": pretrained, "n": n, "steps": steps, "seed": seed}
    with _calling("finetune", given | settings) as keywords:
        what, training = keywords.settings(Finetuning), _training(keywords)
        start, missing = keywords.settings(Start), keywords.settings(Missing)
        place, execution = _place(keywords, workdir, store), _execution(keywords)
        keywords.check()
        if what.pretrained:
            what = dataclasses.replace(what, pretrained=str(places.find_run(what.pretrained)))
        return Run(finetune_task(place, what, training, start, missing, execution))


def evaluate(
    run: AnyPath | Sequence[AnyPath], dataset: AnyPath, store: AnyPath, *, trust: bool = False, **settings: Any
) -> dict[str, Any]:
    """Score a trained run on a prepared data set; or calibrate on it what of its predictions is to be distrusted.

    Examples:
      >>> run = Run(here / "runs/finetune/mine")
      >>> scores = evaluate(run, "hdt_c", here / "store", split="train", distances=True)
      >>> scores["hdt_c_train"]["n"], "hd95_mm_mean" in scores["hdt_c_train"]
      (3, True)

    Args:
      run: the run; for trust also several, as one ensemble.
      dataset: a name, or a TOML file.
      store: folder of the prepared data sets.
      trust: calibrate, and keep that beside the model: `predict` then says how far each prediction is to be believed.
      settings: the command's other flags (fields of `Scoring`, and distances, clean, tiles, adabn of `Workplace`).

    Returns:
      Test set -> its summary, which the run's summary.json holds from now on, too; with trust how well that does.

    Raises:
      InputError: the run or the data are not there or do not fit, or it was trained on one of these test scans.
    """
    given = {"run": _joined(run), "dataset": dataset, "store": store, "trust": trust}
    with _calling("evaluate", given | settings) as keywords:
        named, scoring = keywords.settings(Named), keywords.settings(Scoring)
        measured = keywords.given(Workplace, only=("distances", "clean", "tiles", "tta", "adabn"))
        keywords.check()
        if trust:
            return dict(_calibrate(named, scoring, **measured).measured)
        return _evaluate(named, scoring, **measured)


def load(run: AnyPath | Sequence[AnyPath], **settings: Any) -> Model:
    """A model that segments: of a run, of an exported folder, or one that comes with the package, by its name.

    Examples:
      >>> model = load("brain")
      >>> len(model.structures), model.structures["caudate_left"]
      (16, 1)
      >>> import numpy as np
      >>> noise = np.random.default_rng(0).normal(size=(50, 60, 50))
      >>> found = load(here / "runs/finetune/mine")(noise, affine=np.diag([4, 4, 4, 1]))
      >>> found.label.shape, found.probability.shape, list(found.volumes_ml)
      ((50, 60, 50), (50, 60, 50, 1), ['caudate'])

    Args:
      run: which; of several the mean probability counts.
      settings: fields of `actions.model.Inferring`: trust, passes, registration, clean, tiles, tta, adabn, postprocess.

    Returns:
      Called with a file, a nibabel image, or an array and its affine, it gives a `Prediction` on that scan's voxels.

    Raises:
      InputError: there is no such model, or a setting does not go with it.
    """
    with _calling("load", settings) as keywords:
        how = keywords.settings(Inferring)
        keywords.check()
        return Model.of(model_folders(Which(_joined(run))), how)


@overload
def predict(
    run: "AnyPath | Sequence[AnyPath] | Model | None" = ...,
    input: Any = ...,
    output: None = ...,
    *,
    model: str | None = ...,
    **settings: Any,
) -> Prediction: ...


@overload
def predict(
    run: "AnyPath | Sequence[AnyPath] | Model | None",
    input: AnyPath,
    output: AnyPath,
    *,
    model: str | None = ...,
    **settings: Any,
) -> tuple[Outcome, ...]: ...


@overload
def predict(*, input: AnyPath, output: AnyPath, model: str | None = ..., **settings: Any) -> tuple[Outcome, ...]: ...


def predict(
    run: "AnyPath | Sequence[AnyPath] | Model | None" = None,
    input: Any = None,
    output: AnyPath | None = None,
    *,
    model: str | None = None,
    **settings: Any,
) -> Prediction | tuple[Outcome, ...]:
    """Segment raw scans with a trained run or an exported model, in each scan's own space.

    Examples:
      >>> scan = here / "heads/images/hdt-000.nii.gz"
      >>> found = predict(here / "runs/finetune/mine", scan)
      >>> found.label.shape, list(found.volumes_ml)
      ((43, 55, 39), ['caudate'])
      >>> (one,) = predict(here / "runs/finetune/mine", scan, here / "seg.nii.gz", probabilities=True)
      >>> one.output.name, one.volumes_ml == found.volumes_ml
      ('seg.nii.gz', True)

    Args:
      run: a run, an exported folder, or several; or what `load` gave.
      input: a scan (see `load`), or, with output, a folder or CSV list of scans.
      output: the label map to write, or a folder for several scans; None: nothing is written.
      model: the name of a model that comes with the package, in place of run.
      settings: the command's other flags (fields of `Predicting` and of `Inferring`).

    Returns:
      Without output the `Prediction`: label map, probabilities, volumes. With it an `Outcome` for each scan, with its
      file, volumes and verdict; one that could not be segmented has a `problem`.

    Raises:
      InputError: the model, a scan or the output is not usable, or would replace what is not ours.
    """
    if input is None:
        raise InputError("`input` is missing: give a scan.")
    written = {} if output is None else {"input": input, "output": output}
    with _calling("predict", written | settings) as keywords:
        only = None if output is not None else ("mask",)
        asked, how = keywords.given(Predicting, only=only), keywords.given(Inferring)
        keywords.check()
        if isinstance(run, Model):
            if how or model is not None:
                raise InputError("A loaded model has its settings: give them to tlseg_jax.load, or name the run here.")
            loaded = run
        else:
            loaded = Model.of(model_folders(Which(None if run is None else _joined(run), model)), Inferring(**how))
        if output is None:
            return loaded(input, mask=asked.get("mask"))
        return _predict(loaded, Predicting(**asked), model or "").outcomes


def export(
    run: AnyPath, output: AnyPath, *, licence: str = "", program: bool = True, platforms: Sequence[str] | None = None
) -> Path:
    """Make a folder to hand on of a trained run: checkpoint, StableHLO program and card.

    Examples:
      >>> folder = export(here / "runs/finetune/mine", here / "model", licence="CC BY 4.0", program=False)
      >>> sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
      ['CARD.md', 'card.json', 'checkpoint']

    Args:
      run: the run.
      output: the folder to make.
      licence: under which the model is handed on, in words, for its card.
      program: write the StableHLO program, too.
      platforms: what that is for, of cpu, cuda, rocm and tpu; None: all.

    Returns:
      The folder, which `load` and `predict` take.

    Raises:
      InputError: there is no such run, or the folder holds something else.
    """
    given: dict[str, Any] = {"run": run, "output": output, "licence": licence, "program": program}
    with _calling("export", given | ({} if platforms is None else {"platforms": platforms})) as keywords:
        asked = keywords.settings(Exporting)
        keywords.check()
        _export(asked)
        return Path(asked.output)


def sweep(
    study: AnyPath, *, store: AnyPath | None = None, workdir: AnyPath = "runs", plan: bool = False, **settings: Any
) -> Swept | None:
    """Run a study: every method by every number of labelled scans by every seed, each cell once, resumable.

    Examples:
      >>> small = {"n": [2], "seeds": 1, "steps": 2, "unseen": [], "methods": ["HDT-C-E2E"], "together": 1}
      >>> swept = sweep("brain", store=here / "store", workdir=here / "runs", progress=False, **small)
      >>> len(swept.done), swept.failed, (swept.folder / "results.csv").exists()
      (1, {}, True)

    Args:
      study: brain, liver, factors, remedies, or a TOML file.
      store: see `pretrain`.
      workdir: see `pretrain`.
      plan: tell the cells, what is done, and what the rest takes, and run nothing.
      settings: the command's other flags (fields of `Sweeping`, and in place of the study's of `Study`, `Training` and
        `Missing`; of `Workplace` and `Execution`), and progress.

    Returns:
      The sweep's folder, the cells that are done and those that failed, with the reasons; None of a plan.

    Raises:
      InputError: there is no such study, or it cannot be run on these data.
    """
    with _calling("sweep", {"study": study, "plan": plan, **settings}) as keywords:
        from tlseg_jax.actions.sweep import sweep as run_study  # its report is slow to import

        asked = keywords.settings(Sweeping)
        changes = keywords.given(Study, only=("name", "task", "n", "seeds", "unseen", "folds", "label_maps"))
        changes |= keywords.given(Training, only=("network", "recipe", "steps", "epochs"))
        changes |= keywords.given(Missing, only=("pretrain_steps", "pretrain_epochs"))
        changes = {k: v for k, v in changes.items() if v is not None}
        precision = keywords.settings(Training, only=("precision",)).precision
        execution = keywords.settings(Execution, defaults={"cache": "auto", "parallel": None})
        place = _place(keywords, workdir, store)
        keywords.check()
        return run_study(place, asked, changes, precision, execution)


def report(
    workdir: AnyPath = "runs",
    *,
    study: str | None = None,
    output: AnyPath | None = None,
    viewers: int = 6,
    compare: Sequence[str] = (),
    participants: AnyPath | None = None,
) -> list[Path]:
    """Write the reports of sweeps: one HTML page a study, with figures and tables.

    Examples:
      >>> [page.name for page in report(here / "runs", study="brain", viewers=0)]
      ['report.html']

    Args:
      workdir: that the studies were swept in.
      study: one of them, by name; None: all.
      output: folder of the reports; None: WORKDIR/report.
      viewers: scans to scroll through on each page, at most.
      compare: scores of others to stand beside the study's, each as "NAME:FILE".
      participants: a participants.tsv as BIDS has it, by whose columns the page says on whom models do worse.

    Returns:
      The page of each study.

    Raises:
      InputError: there is no such sweep, or a file has no scores of its scans.
    """
    given: dict[str, Any] = {"study": study, "output": output, "viewers": viewers}
    given |= {"compare": compare, "participants": participants}
    with _calling("report", given, compiles=False) as keywords:
        from tlseg_jax.actions.report import Reporting  # its statistics are slow to import
        from tlseg_jax.actions.report import report as write_reports

        asked = keywords.settings(Reporting)
        keywords.check()
        return write_reports(os.fspath(workdir), asked)


def view(scan: Any, segmentation: Any = None, *, opacity: float = 0.5, height: int = 400) -> Any:
    """Look at a scan in a notebook, with a segmentation over it (NiiVue; `pip install 'tlseg-jax[notebook]'`).

    Args:
      scan: a file, a folder of one DICOM series, or a nibabel image.
      segmentation: a `Prediction`, a file, a nibabel image, or an array (x, y, z) in the scan's axes; None: none.
      opacity: of the segmentation, 0 to 1.
      height: of the widget, in pixels.

    Raises:
      InputError: ipyniivue is not installed, a file is not there, or the two are of different shapes.
    """
    with _calling("view", {}, compiles=False):
        return _view(scan, segmentation, opacity, height)


@contextlib.contextmanager
def _calling(name: str, given: dict[str, Any], *, compiles: bool = True) -> Iterator[Keywords]:
    """What every function does: its keywords are checked, it tells what the commands do, and it knows of buckets."""
    keywords = Keywords(name, given)
    with shown(), places.entered():
        if compiles:
            note = set_up_jax(keywords.given(_Compiling).get("compilation_cache"))
            if note:
                log.info(note)
        try:
            yield keywords
        except ExclusionError as e:
            raise InputError(str(e)) from None


@dataclasses.dataclass(frozen=True)
class _Compiling:
    """Where compiled programs are kept; see `use_compilation_cache`."""

    compilation_cache: str | None = None


def _training(keywords: Keywords) -> Training:
    recipe = {k: v for k, v in keywords.given(Recipe, leave_out=FIXED).items() if v is not None}
    return keywords.settings(Training, leave_out=("recipe_values",), recipe_values=recipe)


def _execution(keywords: Keywords) -> Execution:
    return keywords.settings(Execution, defaults={"parallel": None})


def _place(keywords: Keywords, workdir: AnyPath, store: AnyPath | None) -> Workplace:
    return keywords.settings(
        Workplace,
        leave_out=("workdir", "store", "cohort_spacing", "label_maps"),
        workdir=places.workdir(os.fspath(workdir)),
        store=None if store is None else places.store(os.fspath(store)),
    )


def _joined(run: AnyPath | Sequence[AnyPath]) -> str:
    """One run or several, as the commands name them."""
    return os.fspath(run) if isinstance(run, str | os.PathLike) else ",".join(os.fspath(r) for r in run)
