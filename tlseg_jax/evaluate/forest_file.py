"""A trained forest on disk, without pickle.

FOLDER/forest.skops    the classifier
FOLDER/forest.json     what it was trained on, its features, versions and the checksum of the other
"""

import hashlib
import importlib.metadata
import json
import platform
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.ensemble import RandomForestClassifier

from tlseg_jax.evaluate.component_features import FEATURES
from tlseg_jax.evaluate.false_positives import KEEP, Forest
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing, write_json

FORMAT = 1
CHECKED_TYPES = ("sklearn.tree._tree.Tree",)
"""The only types that skops does not trust by itself and a forest needs.

Scikit-learn follows a tree's node numbers without looking whether they exist, so they are checked here
(`_check_tree`) before the forest is used."""


def save_forest(folder: Path, forest: Forest) -> None:
    """Write both files, each whole or not at all, into a folder that is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    data = skops.io.dumps(forest.classifier, compression=zipfile.ZIP_DEFLATED)
    with replacing(folder / "forest.skops", "wb") as f:
        f.write(data)
    weights = zip(FEATURES, forest.classifier.feature_importances_, strict=True)
    write_json(
        folder / "forest.json",
        {
            "format": FORMAT,
            "sha256": hashlib.sha256(data).hexdigest(),
            "features": list(FEATURES),
            "threshold": KEEP,
            "liver": forest.liver,
            "subjects": list(forest.subjects),
            "true_components": forest.true_components,
            "false_components": forest.false_components,
            "importance": {k: float(v) for k, v in sorted(weights, key=lambda kv: -kv[1])},
            "versions": {p: importlib.metadata.version(p) for p in ("scikit-learn", "skops", "numpy")}
            | {"python": platform.python_version()},
        },
    )


def load_forest(folder: Path) -> Forest:
    """Read a forest.

    Raises:
      InputError: there is none, or it is damaged, of another version, or holds what no forest of ours holds.
    """
    path = folder / "forest.skops"
    remedy = "train it again with 'tlseg postprocess'."
    try:
        about = json.loads((folder / "forest.json").read_text(encoding="utf-8"))
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"There is no post-processing forest in {folder}: {remedy}") from None
    except (OSError, ValueError) as e:
        raise InputError(f"The forest in {folder} cannot be read ({e}): {remedy}") from None
    if not isinstance(about, dict) or about.get("sha256") != hashlib.sha256(data).hexdigest():
        raise InputError(f"{path} is not the file that forest.json beside it describes: {remedy}")
    if about.get("format") != FORMAT or about.get("features") != list(FEATURES) or about.get("threshold") != KEEP:
        raise InputError(f"The forest in {folder} was written by another version of this project: {remedy}")
    versions = about.get("versions")
    theirs = str(versions.get("scikit-learn") if isinstance(versions, dict) else None)
    ours = importlib.metadata.version("scikit-learn")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise InputError(f"{path} was written by scikit-learn {theirs} and this is {ours}: {remedy}")
    try:
        foreign = [t for t in skops.io.get_untrusted_types(data=data) if t not in CHECKED_TYPES]
        if foreign:
            raise InputError(f"{path} holds types that no forest has ({', '.join(map(str, foreign))}): {remedy}")
        classifier = skops.io.loads(data, trusted=list(CHECKED_TYPES))
        _check_forest(classifier)
        return Forest(
            classifier,
            bool(about["liver"]),
            tuple(map(str, about["subjects"])),
            int(about["true_components"]),
            int(about["false_components"]),
        )
    except _FAULTS as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise InputError(f"{path} is damaged ({reason}): {remedy}") from None


_FAULTS = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
    *(ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError),
)
"""What a reader may meet in a file that is not what it says it is."""


def _check_forest(classifier: Any) -> None:
    """Raise ValueError unless it is a forest of two classes over our features with whole trees."""
    if type(classifier) is not RandomForestClassifier:
        raise ValueError(f"it is a {type(classifier).__name__}")
    if classifier.n_features_in_ != len(FEATURES) or list(classifier.classes_) != [False, True]:
        raise ValueError("it is a forest for something else")
    if classifier.n_outputs_ != 1 or not classifier.estimators_:
        raise ValueError("it has no trees, or several outputs")
    for estimator in classifier.estimators_:
        _check_tree(estimator.tree_)


def _check_tree(tree: Any) -> None:
    """Raise ValueError unless every walk from the root ends in a leaf and reads only our features."""
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    count = tree.node_count
    node = np.arange(count)
    leaf = left == -1
    inner = ~leaf
    # Children come after their parent, so no walk goes in circles.
    whole = (
        count > 0
        and len(left) == len(right) == len(feature) == count
        and tree.n_features == len(FEATURES)
        and tree.value.shape == (count, 1, 2)
        and bool((right[leaf] == -1).all())
        and all(bool(((c > node) & (c < count))[inner].all()) for c in (left, right))
        and bool(((feature >= 0) & (feature < len(FEATURES)))[inner].all())
        and bool(np.isfinite(tree.value).all())
    )
    if not whole:
        raise ValueError("a tree's nodes do not fit together")
