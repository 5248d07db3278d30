"""Segmentations that are made once: what is there of the same scan by the same model stays, what is not ours too."""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlseg_jax.evaluate.label_map import (
    SUFFIXES,
    doubt_path,
    probabilities_path,
    save_label_map,
    save_probabilities,
    structure_path,
)
from tlseg_jax.evaluate.predict import Prediction
from tlseg_jax.evaluate.table import write_table
from tlseg_jax.evaluate.trust.verdict import Verdict
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.written import Written, file_digest

REPLACED = "it replaces what an earlier call made of another scan, by another model or with other settings"


REVIEW = "review"
"""The first of the columns of trust: whether to look at the scan; then why, what of it is unlike the known scans, and
the predicted Dice (uncalibrated: the agreement) of the structure with least; and for each structure its agreement,
predicted Dice, the ends of its volume's interval and whether it is flagged."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
      input: the scan's file.
      output: the label map; None where it failed.
      volumes_ml: structure -> its volume in ml; empty where it failed.
      seconds: in all.
      warning: what looked wrong, or "".
      problem: why it failed, or "".
      anew: whether it was segmented now, and not by an earlier call.
      verdict: how far it is to be believed, where that was asked.
    """

    subject: str
    input: Path
    output: Path | None = None
    volumes_ml: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    warning: str = ""
    problem: str = ""
    anew: bool = True
    verdict: Verdict | None = None

    def cells(self) -> dict[str, str]:
        """Text for each column of volumes.csv."""
        return {
            "subject": self.subject,
            "input": str(self.input),
            "output": "" if self.output is None else str(self.output),
            **{
                "volume_ml" if len(self.volumes_ml) == 1 else f"{name}_ml": f"{ml:.4f}"
                for name, ml in self.volumes_ml.items()
            },
            "seconds": f"{self.seconds:.1f}",
            "warning": self.warning,
            "problem": self.problem,
            **({} if self.verdict is None else trust_cells(self.verdict)),
        }


def trust_cells(verdict: Verdict) -> dict[str, str]:
    """Text for the columns of volumes.csv that say how far a prediction is to be believed."""
    cells = {REVIEW: "yes" if verdict.review else "no", "reasons": "; ".join(verdict.reasons)}
    cells["unlike"] = "; ".join(verdict.unlike)
    cells["lowest_dice" if verdict.calibrated else "lowest_agreement"] = f"{verdict.lowest:.3f}"
    for name, s in verdict.structures.items():
        before = "" if len(verdict.structures) == 1 else f"{name}_"
        cells[f"{before}agreement"] = f"{s.agreement:.3f}"
        cells[f"{before}predicted_dice"] = "" if s.predicted is None else f"{s.predicted:.3f}"
        # Not "..._ml": whoever adds up the columns that end so would count a structure three times.
        cells[f"{before}ml_low"], cells[f"{before}ml_high"] = f"{s.low_ml:.4f}", f"{s.high_ml:.4f}"
        cells[f"{before}flag"] = "yes" if s.flagged else "no"
    return cells


class Once:
    """Segments scans with one model, each once."""

    def __init__(
        self,
        segment: Callable[[ScanFiles], Prediction],
        model: Mapping[str, Any] | None,
        overwrite: bool = False,
        probabilities: bool = False,
        trust: bool = False,
    ) -> None:
        """Do nothing yet.

        Args:
          segment: one scan, such as `predict_scan` with a network.
          model: JSON that is the same for the same model with the same settings; None: unknown, and nothing is reused.
          overwrite: make every label map anew, and replace what is there, whoever wrote it.
          probabilities: write those of the structures beside each label map (`label_map.probabilities_path`).
          trust: whether `segment` judges its predictions; their doubt is written beside (`label_map.doubt_path`).
        """
        self._segment, self._model, self._overwrite, self._probabilities = segment, model, overwrite, probabilities
        self._trust = trust
        self._sources: dict[ScanFiles, dict[str, str]] = {}

    def check(self, paths: Sequence[Path]) -> None:
        """Refuse to replace what is not ours, before any work.

        Args:
          paths: what will be written.

        Raises:
          InputError: one is there that no earlier call wrote, or that was changed since.
        """
        maps = [p for p in paths if p.name.lower().endswith(SUFFIXES)]
        if self._probabilities:
            paths = [*paths, *map(probabilities_path, maps)]
        if self._trust:
            paths = [*paths, *map(doubt_path, maps)]
        for folder in dict.fromkeys(p.parent for p in paths):
            theirs = Written(folder).others([p.name for p in paths if p.parent == folder])
            if theirs and not self._overwrite:
                raise _refused(folder / theirs[0])

    def make(self, files: ScanFiles, path: Path) -> Outcome:
        """Segment a scan, unless its label map is there already; one of another scan or model is replaced.

        Raises:
          ExclusionError: the scan cannot be used.
          InputError: see `save_label_map`.
        """
        there = None if self._overwrite else self._there(files, path)
        if there is not None:
            return there
        start = time.perf_counter()
        prediction = self._segment(files)
        said = prediction.warnings
        if prediction.apart:
            said = (*said, f"{' and '.join(prediction.apart)} overlap where no label value says so: each has a file")
        known: dict[str, Any] = {"of": self._of(files), "volumes_ml": dict(prediction.volumes_ml)}
        known |= {"warnings": list(said), "apart": list(prediction.apart), "seconds": time.perf_counter() - start}
        if prediction.verdict is not None:
            known["verdict"] = prediction.verdict.to_dict()
        made = self._outcome(files, path, known)
        if path.exists() and self._known(path).get("of") not in (None, known["of"]):
            made = dataclasses.replace(made, warning="; ".join(filter(None, (made.warning, REPLACED))))
        affine = prediction.affine

        def claiming(at: Path, **of: Any) -> Callable[[Path], None]:
            return functools.partial(self._claim, at, **of)

        if self._probabilities:
            beside = probabilities_path(path)
            save_probabilities(prediction.probability, affine, files, beside, claiming(beside))
        if prediction.doubt is not None:
            beside = doubt_path(path)
            percent = np.rint(100 * prediction.doubt).astype(np.uint8)
            save_label_map(percent, affine, files, beside, claiming(beside))
        for structure in self._known(path).get("apart", ()):
            if structure not in prediction.apart:  # it is of another scan or model
                structure_path(path, structure).unlink(missing_ok=True)
        for structure, mask in prediction.apart.items():
            beside = structure_path(path, structure)
            save_label_map(mask, affine, files, beside, claiming(beside))
        save_label_map(prediction.label, affine, files, path, claiming(path, **known))
        return made

    def write_table(self, path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
        """Write a CSV file of ours into a folder that exists. Raises InputError: it was changed meanwhile."""
        beside = path.with_name(f".{path.name}.new")
        write_table(beside, columns, rows)
        self._claim(path, beside)
        beside.replace(path)

    def write_page(self, path: Path, write: Callable[[Path], object]) -> None:
        """Have a file of ours written into a folder that exists. Raises InputError: it was changed meanwhile."""
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as beside:
            made = Path(beside) / path.name
            write(made)
            self._claim(path, made)
            made.replace(path)

    def _claim(self, path: Path, beside: Path, **known: Any) -> None:
        """Put down what is about to take its name; work may have taken hours since `check`."""
        written = Written(path.parent)
        if not self._overwrite and written.others([path.name]):
            raise _refused(path)
        written.add({path.name: file_digest(beside)}, **known)

    def _there(self, files: ScanFiles, path: Path) -> Outcome | None:
        """The label map at `path`, where it is what would be made."""
        known = self._known(path)
        if self._model is None or known.get("of") != self._of(files):
            return None
        if self._probabilities and not probabilities_path(path).is_file():
            return None
        if self._trust and not ("verdict" in known and doubt_path(path).is_file()):
            return None
        if not all(structure_path(path, s).is_file() for s in known.get("apart", ())):
            return None
        if not path.is_file() or file_digest(path) != known["sha256"][0]:  # a stop came before the file took its name
            return None
        return dataclasses.replace(self._outcome(files, path, known), anew=False)

    def _outcome(self, files: ScanFiles, path: Path, known: Mapping[str, Any]) -> Outcome:
        """What became of a scan, from what is kept of its label map."""
        verdict = Verdict.from_dict(known["verdict"]) if self._trust and "verdict" in known else None
        warning = "; ".join(known["warnings"])
        ml, seconds = known["volumes_ml"], known["seconds"]
        return Outcome(files.subject, files.image, path, ml, seconds, warning, verdict=verdict)

    def _known(self, path: Path) -> dict[str, Any]:
        return Written(path.parent).files().get(path.name, {})

    def _of(self, files: ScanFiles) -> dict[str, Any]:
        """What a label map is made of; a brain mask is used, a label is not."""
        if files not in self._sources:
            self._sources[files] = checksums_of(dataclasses.replace(files, label=None))
        return self._sources[files] | {"model": None if self._model is None else dict(self._model)}


def _refused(path: Path) -> InputError:
    return InputError(
        f"{path} is there and was not written by this command, or was changed since: choose another `output`, move it "
        "away, or give `overwrite` to replace what is there."
    )
