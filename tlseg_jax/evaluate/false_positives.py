"""Post-processing of Chlebus et al. 2018: a random forest of 256 trees drops false tumours.

Each 3D connected component of a prediction is classified as true or false by its features
(`component_features`). A component is true where at least half of its voxels lie in the reference; this
says nothing of how much of a tumour it covers, which is what `detection` measures.

The forest learns from predictions on training volumes only. The network has learnt from the same volumes,
so its mistakes there may be fewer than on new scans, and of another kind: measure the effect on test
volumes (`forest_effect`) before using it.
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import Spacing3
from tlseg_jax.evaluate.component_features import FEATURES, component_features
from tlseg_jax.evaluate.inference import THRESHOLD
from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.runtime.errors import InputError

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

TREES = 256
KEEP = 0.5
"""A component is kept from this probability of being true on."""
TRUE_SHARE = 0.5
"""A component is true where this share of its voxels lies in the reference."""


@dataclasses.dataclass(frozen=True, eq=False)
class PredictedVolume:
    """One volume as a network sees it, arrays (planes, x, y).

    Attributes:
      probability: of the structure.
      image: as prepared.
      spacing: voxel sides on x, y, z in mm.
      reference: the labelled structure.
      liver: the predicted liver; None where the network has no such output.
    """

    subject: str
    probability: NDArray[np.float32]
    image: NDArray[np.floating]
    spacing: Spacing3
    reference: Mask
    liver: Mask | None = None

    @property
    def mask(self) -> Mask:
        """The predicted structure."""
        return self.probability > THRESHOLD


@dataclasses.dataclass(frozen=True, eq=False)
class Forest:
    """A trained classifier of components.

    Attributes:
      classifier: of the columns of `FEATURES`; its classes are False and True.
      liver: whether distances are measured to the predicted liver, else to the body.
      subjects: the volumes that it learnt from.
      true_components, false_components: how many it learnt from.
    """

    classifier: "RandomForestClassifier"
    liver: bool
    subjects: tuple[str, ...]
    true_components: int
    false_components: int

    def probability_of_true(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """(components,) probability of being a tumour, from a table (components, len(FEATURES))."""
        if not len(table):
            return np.zeros(0)
        return self.classifier.predict_proba(table)[:, 1]  # type: ignore[no-any-return]

    def keep(
        self,
        probability: NDArray[np.floating],
        mask: Mask,
        image: NDArray[np.floating],
        spacing: Spacing3,
        liver: Mask | None = None,
    ) -> Mask:
        """The mask (planes, x, y) without the components that are rather false than true; see `component_features`."""
        labels, table = component_features(probability, mask, image, spacing, liver)
        kept = np.concatenate([[False], self.probability_of_true(table) >= KEEP])
        return kept[labels]


def true_components(labels: NDArray[np.int32], reference: Mask) -> NDArray[np.bool_]:
    """(components,) whether at least half of each component's voxels, numbered from 1, lie in the reference."""
    count = int(labels.max(initial=0)) + 1
    size = np.bincount(labels.ravel(), minlength=count)
    inside = np.bincount(labels[reference], minlength=count)
    return inside[1:] >= TRUE_SHARE * size[1:]


def train_forest(volumes: Iterable[PredictedVolume], *, trees: int = TREES, seed: int = 0) -> Forest:
    """Train a forest on the components of training volumes; they are read once, one at a time.

    Raises:
      InputError: the components are not of both kinds, so there is nothing to learn.
    """
    tables: list[NDArray[np.float64]] = [np.empty((0, len(FEATURES)))]
    answers: list[NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
    subjects: list[str] = []
    liver = False
    for v in volumes:
        labels, table = component_features(v.probability, v.mask, v.image, v.spacing, v.liver)
        tables.append(table)
        answers.append(true_components(labels, v.reference))
        subjects.append(v.subject)
        liver = v.liver is not None
    answer = np.concatenate(answers)
    true, false = int(np.count_nonzero(answer)), int(np.count_nonzero(~answer))
    if not (true and false):
        remedy = "there is nothing to filter, so do without it" if true else "train the network longer first"
        raise InputError(
            f"The predictions on the {len(subjects)} training volume(s) hold {true} true and {false} false "
            f"component(s) and a forest needs both kinds to learn from: {remedy}."
        )
    from sklearn.ensemble import RandomForestClassifier  # slow to import, for all who predict without a forest

    classifier = RandomForestClassifier(trees, random_state=seed).fit(np.concatenate(tables), answer)
    return Forest(classifier, liver, tuple(subjects), true, false)
