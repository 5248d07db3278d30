"""Trained networks that segment scans: one, or several whose mean probability counts, with what goes with them."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import Predictor, Tiles
from tlseg_jax.evaluate.predict import Prediction, own_values, predict_scan
from tlseg_jax.evaluate.trust.passes import COUNT, make_passes, may_mirror
from tlseg_jax.evaluate.trust.trust_file import load_calibration
from tlseg_jax.evaluate.trust.trusting import Trust, check_alike
from tlseg_jax.evaluate.tta import averaged, averages, mean_of
from tlseg_jax.export.load import AnyModel, load_any_model
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.reading.formats import is_dicom_folder, stem_of
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.written import file_digest


@dataclasses.dataclass(frozen=True)
class Inferring:
    """How a model segments.

    Attributes:
      postprocess: 2D runs: drop components that the run's forest (of 'tlseg postprocess') takes to be false.
      trust: say how far each prediction is to be believed: several passes, their agreement, predicted Dice, volumes
        with an interval, and what to review; of a folder a page, trust.html. 'tlseg evaluate --trust' calibrates it.
      passes: of each network, with trust; not given: those of its calibration, else 8.
      registration: skip: the scans are in the data set's space already; not given: as in the run's preprocessing.
      clean: see `Workplace`, as for the next three.
      tiles: likewise.
      tta: likewise; with trust its passes are averaged in place of these.
      adabn: likewise.
    """

    postprocess: bool = False
    trust: bool = False
    passes: int | None = None
    registration: Literal["auto", "skip"] | None = None
    clean: bool = True
    tiles: Tiles = "gaussian"
    tta: bool = True
    adabn: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """What predicts, together.

    Attributes:
      saved: the networks, as they were read.

    Raises:
      InputError: they do not go together, or not with the settings.
    """

    folders: Sequence[Path]
    saved: Sequence[AnyModel]
    how: Inferring = Inferring()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, and tell what every use of this model has to know."""
        how = self.how
        if how.adabn and (how.trust or len(self.saved) > 1):
            raise InputError(
                "`adabn` goes with one model and no `trust`, whose calibration is without it: leave one out."
            )
        if how.trust and not how.tta:
            raise InputError("`notta` goes without `trust`, which has passes of its own: leave one of them out.")
        check_alike(self.saved, self.folders)
        if len({m.weights for m in self.saved}) < len(self.saved):
            raise InputError("`run` names one model twice: name each once.")
        if self.synthetic:
            log.warning("warning: this model has only seen synthetic scans: its output on a real scan means nothing.")
        if how.passes is not None and not how.trust:
            raise InputError("`passes` goes with `trust`: give both, or leave it out.")
        if self.spec.kind == "slices" and how.registration:
            raise InputError(f"`registration` goes with 3D runs, and {self.folders[0]} is 2D: leave it out.")
        if how.postprocess:
            self._check_forest()
        _ = self.trust, self._settings  # whose faults are told before any work

    @classmethod
    def of(cls, folders: Sequence[Path], how: Inferring | None = None) -> "Model":
        """The networks of runs or exported models.

        Raises:
          InputError: one is not there or damaged, or they do not go together.
        """
        return cls(folders, [load_any_model(f) for f in folders], how or Inferring())

    def _check_forest(self) -> None:
        run = self.folders[0]
        if self.spec.kind != "slices":
            raise InputError(f"`postprocess` goes with 2D runs, and {run} is 3D: leave it out.")
        if self.how.adabn:
            raise InputError("`postprocess` goes by a forest that learnt from predictions without `adabn`: give one.")
        if self.saved[0].kind != "run":
            raise InputError(f"`postprocess` goes with run folders, as {run} holds no forest: leave it out.")

    @property
    def synthetic(self) -> bool:
        """Whether one of them has seen drawn images of drawn persons alone."""
        return any(m.description["synthetic"] for m in self.saved)

    @functools.cached_property
    def spec(self) -> DatasetSpec:
        """What they were trained on."""
        return spec_from_dict(self.saved[0].description["spec"], str(self.folders[0]))

    @property
    def registers(self) -> bool:
        """Whether scans are registered to the head that the data set's are, which takes most of the time."""
        settings = self._settings["settings"]
        return settings is not None and self.spec.volumes.space == "MNI305" and settings.registration == "auto"

    @property
    def structures(self) -> dict[str, int]:
        """Structure -> the value that it has in a label map."""
        values = own_values(self.spec.structures, self.spec.label_values, self.spec.exclusive)
        return dict(zip(self.spec.structures, values, strict=True))

    @functools.cached_property
    def predictors(self) -> list[Predictor]:
        """Each network."""
        return [m.predictor(self.how.adabn) for m in self.saved]

    @functools.cached_property
    def together(self) -> Predictor:
        """The mean of all, each averaged over a scan's own passes."""
        return mean_of(
            [
                averaged(p, self.spec) if self.how.tta and averages(m.description) else p
                for p, m in zip(self.predictors, self.saved, strict=True)
            ]
        )

    @functools.cached_property
    def trust(self) -> Trust | None:
        """What predictions are judged with; None: they are not.

        Raises:
          InputError: the calibration beside the model is of another number of passes.
        """
        if not self.how.trust:
            return None
        home = self.folders[0] if self.folders[0].is_dir() else self.folders[0].parent
        calibration, asked = load_calibration(home, [m.weights for m in self.saved]), self.how.passes
        if calibration is None:
            together = " together" if len(self.saved) > 1 else ""
            log.warning(
                f"warning: {home} holds no calibration of these weights{together}, so the passes' agreement is "
                "told, which is no Dice to expect: calibrate it with 'tlseg evaluate --trust'."
            )
        elif asked not in (None, calibration.passes):
            raise InputError(
                f"`passes={asked}`: the calibration in {home} is of {calibration.passes} passes: leave `passes` out, "
                f"or calibrate with 'tlseg evaluate --trust --passes={asked}'."
            )
        count = asked or (calibration.passes if calibration else COUNT)
        passes = make_passes(count, calibration.seed if calibration else 0, may_mirror(self.spec))
        return Trust(self.predictors, passes, calibration)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """JSON that is the same for the same networks with the same settings, so that nothing is segmented twice."""
        how, digests = self.how, [m.digest for m in self.saved]
        forest = file_digest(self.folders[0] / "postprocess" / "forest.json") if how.postprocess else None
        said: dict[str, Any] = {"digest": digests[0] if len(digests) == 1 else digests, "tiles": how.tiles}
        said |= {"registration": how.registration, "forest": forest, "clean": how.clean}
        if how.tta and not how.trust and self.spec.kind == "volumes" and averages(self.saved[0].description):
            said["tta"] = True
        if how.adabn:
            said["adabn"] = how.adabn
        if self.trust is not None:
            calibration = None if self.trust.calibration is None else self.trust.calibration.digest
            said |= {"passes": len(self.trust.passes), "calibration": calibration}
        return said

    def __call__(self, scan: Any, affine: Any = None, *, mask: str | os.PathLike[str] | None = None) -> Prediction:
        """Segment one scan and write nothing.

        Args:
          scan: a file, a folder of one DICOM series, a nibabel image, or an array (x, y, z) with its `affine`.
          affine: (4, 4) voxel -> RAS mm of an array.
          mask: a file of a brain mask on the same grid.

        Returns:
          The label map, probabilities and volumes, on the scan's own voxels.

        Raises:
          InputError: the scan cannot be used, or is an array without an affine.
        """
        given = None if mask is None else Path(mask)
        try:
            if isinstance(scan, str | os.PathLike):
                return self.segment(scan_files(Path(scan), given))
            return self._segment_array(scan, affine, given)
        except ExclusionError as e:
            raise InputError(str(e)) from None

    def _segment_array(self, scan: Any, affine: Any, mask: Path | None) -> Prediction:
        """By way of a file, so that what holds for scans that are read holds here."""
        if affine is None and not hasattr(scan, "affine"):
            raise InputError("An array says nothing of its voxels: give `affine`, or a nibabel image.")
        voxels = np.asarray(getattr(scan, "dataobj", scan), np.float32)
        placed = np.asarray(scan.affine if affine is None else affine, np.float64)
        if voxels.ndim != 3 or placed.shape != (4, 4):
            raise InputError(f"A scan of {voxels.shape} with an affine of {placed.shape}: give (x, y, z) and (4, 4).")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "array.nii"
            nib.save(nib.Nifti2Image(voxels, placed), path)
            found = self.segment(ScanFiles("array", path, mask=mask))
        return dataclasses.replace(found, files=ScanFiles("array", Path("array")))

    def segment(self, files: ScanFiles) -> Prediction:
        """Segment a scan's file, with the preprocessing of the training data.

        Raises:
          ExclusionError: the scan cannot be used.
          InputError: a mask was given for a 2D network; or see `predict_scan`.
        """
        if self.spec.kind == "slices" and files.mask is not None:
            raise InputError(f"`mask` goes with 3D runs, and {self.folders[0]} is 2D: leave it out.")
        return predict_scan(files, predictor=self.together, trust=self.trust, **self._settings)

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        d, how = self.saved[0].description, self.how
        common = {"spec": self.spec, "smallest": d.get("smallest_pieces") if how.clean else None}
        if self.spec.kind == "slices":
            found: dict[str, Any] = {"box": None, "settings": None, "channels": self.saved[0].config.channels}
            if how.postprocess:
                from tlseg_jax.evaluate.forest_file import load_forest  # what it is kept with is slow to import

                folder = self.folders[0] / "postprocess"
                found |= {"forest": load_forest(folder), "cleaned": str(read_json(folder / "effect.json")["structure"])}
            return common | found
        settings = d["prepare"] | ({"registration": how.registration} if how.registration else {})
        box = Box.from_dict(d["patch_box"]) if d["patch_box"] else None
        return common | {"box": box, "settings": PrepareSettings.from_dict(settings), "tiles": how.tiles}


def scan_files(path: Path, mask: Path | None = None) -> ScanFiles:
    """The files of a single scan, which is named as its file or folder is.

    Raises:
      InputError: there is none, or it is a folder of several.
    """
    if not path.exists():
        raise InputError(f"The scan {path} does not exist: check the path.")
    if path.is_dir() and not is_dicom_folder(path):
        raise InputError(f"{path} is a folder of several scans: name one of them, or give `output` to segment all.")
    return ScanFiles(stem_of(path) or path.name, path, mask=mask)
