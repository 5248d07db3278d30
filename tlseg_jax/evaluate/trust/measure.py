"""How well a sign of failure puts the failures last: rank correlation, and the area under the risk-coverage curve."""

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.stats import spearmanr


def risk_coverage(sure: ArrayLike, risk: ArrayLike) -> Float64[np.ndarray, " cases"]:
    """Mean risk (1 - Dice) of the k most trusted cases, for k = 1 to all (Geifman and El-Yaniv 2017).

    Higher `sure` is more trusted; cases that are trusted alike count together, as their order is chance.
    """
    s, r = np.asarray(sure, np.float64), np.asarray(risk, np.float64)
    order = np.argsort(-s, kind="stable")
    s, r = s[order], r[order]
    _, group = np.unique(-s, return_inverse=True)
    even = np.bincount(group, r)[group] / np.bincount(group)[group]
    return np.asarray(np.cumsum(even) / np.arange(1, len(r) + 1))


def area(sure: ArrayLike, risk: ArrayLike) -> float:
    """Under the risk-coverage curve (AURC): low is good; that of chance is the mean risk."""
    return float(risk_coverage(sure, risk).mean())


def best_area(risk: ArrayLike) -> float:
    """That of an oracle that knows the risk."""
    return area(-np.asarray(risk, np.float64), risk)


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's; None where one of them is constant or there are fewer than three."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y)[0])
