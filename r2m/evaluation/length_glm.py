"""Logistic regression of preferences on lengths: what a win rate would be between responses of equal length.

The model is AlpacaEval's (Dubois et al., Length-Controlled AlpacaEval, 2024; alpaca-eval 0.6.6, glm_winrate.py): no
intercept of its own, targets that are probabilities, an L1 penalty whose weight is chosen by cross-validation of the
log-likelihood in five folds. Upstream leaves the fit to liblinear, which stops early and shuffles; here the same
convex objective is solved to the end, which moves a win rate by about 0.005 points at the most.

Axes: N rows, P parameters (at most three).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

FOLDS = 5
STRENGTHS = tuple(np.logspace(-4, 4, 10).tolist())  # C, the data's weight against the penalty: sklearn's grid


@dataclass(frozen=True)
class Fit:
    weights: np.ndarray  # [P]
    strength: float  # C
    losses: dict[float, float]  # C -> held-out loss in nats a row, of those that were tried


def tanh_of_lengths(len_1: np.ndarray, len_2: np.ndarray) -> np.ndarray:
    """tanh((len_1 - len_2) / their standard deviation), [N]; 0 where all differ by as much, or for one row."""
    difference = np.asarray(len_1, float) - np.asarray(len_2, float)
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros(len(difference))


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -z))


def cross_validated(X_NP: np.ndarray, p_N: np.ndarray, weight_N: np.ndarray) -> Fit:
    """Weights for the C whose mean held-out loss over five folds is least, the smaller C of equals.

    Row i is in fold i mod 5, which is the partition of sklearn's GroupKFold for groups of equal size. Where two C are
    about as good, the partition decides between them. Raises ValueError for fewer than five rows.
    """
    if len(p_N) < FOLDS:
        raise ValueError(f"rows = {len(p_N)}: at least {FOLDS} are needed for as many folds")
    fold_N = np.arange(len(p_N)) % FOLDS

    def held_out_loss(C: float, held_N: np.ndarray) -> float:
        b = fit(X_NP[~held_N], p_N[~held_N], weight_N[~held_N], C)
        return float(np.mean(weight_N[held_N] * _cross_entropy(p_N[held_N], X_NP[held_N] @ b)))

    losses = {C: float(np.mean([held_out_loss(C, fold_N == fold) for fold in range(FOLDS)])) for C in STRENGTHS}
    best = min(STRENGTHS, key=losses.__getitem__)
    return Fit(fit(X_NP, p_N, weight_N, best), best, losses)


def fit(
    X_NP: np.ndarray, p_N: np.ndarray, weight_N: np.ndarray, strength: float, start_P: np.ndarray | None = None
) -> np.ndarray:
    """The minimum [P] of C Σ weight · cross-entropy(p, sigmoid(X b)) + |b|_1, by Newton steps with the penalty kept.

    p_N: target probabilities in [0, 1]; weight_N: not negative; start_P: a guess, which only saves steps. Where
    columns are the same up to a factor, the minimum is one of many.
    """

    def objective(b: np.ndarray) -> float:
        return float(strength * weight_N @ _cross_entropy(p_N, X_NP @ b) + np.abs(b).sum())

    b = np.zeros(X_NP.shape[1]) if start_P is None else start_P
    value = objective(b)
    for _ in range(100):
        q_N = sigmoid(X_NP @ b)
        gradient = strength * X_NP.T @ (weight_N * (q_N - p_N))
        hessian = strength * (X_NP.T * (weight_N * q_N * (1 - q_N))) @ X_NP
        hessian += (1e-10 * np.trace(hessian) + 1e-12) * np.eye(len(b))  # so that it can be solved
        step = _penalised_minimum(b, gradient, hessian) - b
        size = 1.0
        while (new := objective(b + size * step)) > value and size > 1e-9:
            size /= 2
        if new >= value:
            break
        b, value = b + size * step, new
        if np.abs(size * step).max() < 1e-10:
            break
    return b


def _penalised_minimum(b: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """The t with the least gradient·(t - b) + (t - b)·hessian·(t - b) / 2 + |t|_1. All 3^P patterns of signs are
    tried; within each this is a quadratic."""
    pull = hessian @ b - gradient
    best, least = np.zeros_like(b), 0.0  # the value at t = 0, but for a constant
    for signs in product((1.0, -1.0, 0.0), repeat=len(b)):
        s = np.array(signs)
        on = s != 0
        if on.any():
            t = np.zeros_like(b)
            t[on] = np.linalg.solve(hessian[np.ix_(on, on)], (pull - s)[on])
            value = t @ hessian @ t / 2 - pull @ t + np.abs(t).sum()
            if (t * s >= 0).all() and value < least:
                best, least = t, value
    return best


def _cross_entropy(p: np.ndarray, z: np.ndarray) -> np.ndarray:
    """In nats, between target probabilities p and the probabilities whose logits are z."""
    return np.logaddexp(0, z) - p * z
