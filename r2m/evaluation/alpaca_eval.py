"""AlpacaEval 2: win rate and length-controlled win rate of a model against a baseline, from annotations.

Sources: Dubois et al., Length-Controlled AlpacaEval (2024), and alpaca-eval 0.6.6, whose numbers these are:

- A preference is 1 where the baseline wins, up to 2 where the model does; 1.5 and 0 are ties. NaN and what is
  outside of [1, 2] is left out and not counted.
- The win rate is the mean of preference - 1. The discrete one rounds preferences first.
- The length-controlled win rate is what a logistic model predicts for responses of the baseline's length. Its
  terms are tanh of the length difference (in standard deviations over all rows), the instruction's difficulty, and
  the model. Two rows an instruction of a baseline with gamed lengths are added with weight 0.1 each, without the
  model's term: they hold the first two terms to what is known of the judge.
- A row without a preference still counts in the spread of lengths and in the mean of the predictions.
- A difficulty belongs to an instruction. Published annotations have no index, and alpaca-eval takes a row's position
  for one, which is wrong from the first missing row on: alpaca-7b_verbose, 3 rows short, is at 6.82 on the
  leaderboard and at 5.20 with the difficulties of its own instructions. Here an instruction is known by its text or
  its index, and never by its position.

Refits of the leaderboard's models come within 0.005 points of alpaca-eval 0.6.6 under sklearn 1.9, and of the
published rate for most. Outliers, 0.06 to 0.11 points off, are models for which two values of the penalty's weight
predict held-out rows equally well, to about 2e-5 nats: which one wins depends on which rows share a fold, and that
was the order in which older versions of sklearn and numpy sort equal numbers, another one on every kind of CPU.
`AlpacaLengthControlled.win_rate_by_strength` holds the rates of all of them. The published standard error is that of
the predictions' mean over instructions: it does not contain the uncertainty of the fit.

All rates and errors are in per cent. Axes: N rows of annotations, G rows of the gamed baseline.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from r2m.errors import UserError
from r2m.evaluation.length_glm import FOLDS, cross_validated, fit, sigmoid, tanh_of_lengths

GAMED_WEIGHT = 0.2 / 2  # λ, shared by the two gamed rows of an instruction


@dataclass(frozen=True)
class Annotations:
    """A judge's preferences between one model and the baseline."""

    model: str
    baseline: str
    index_N: np.ndarray | None  # which instruction; None where nothing says so
    preference_N: np.ndarray  # 1 .. 2, 0, or NaN for none
    len_1_N: np.ndarray  # characters of the baseline's output
    len_2_N: np.ndarray  # of the model's


@dataclass(frozen=True)
class Gamed:
    """What upstream calls df_gamed: the rows that hold length and difficulty, and the difficulties themselves."""

    preference_G: np.ndarray  # 0 .. 1
    std_delta_len_G: np.ndarray
    difficulty_G: np.ndarray
    difficulty: Mapping[int, float]  # of an instruction
    baseline: str | None = None  # whose lengths are gamed, where the table says so


@dataclass(frozen=True)
class AlpacaWinRate:
    """`standard_error` is NaN for one row."""

    win_rate: float
    standard_error: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float


@dataclass(frozen=True)
class Weights:
    length: float
    difficulty: float
    model: float


@dataclass(frozen=True)
class AlpacaLengthControlled:
    """`strength` is C, None where nothing was fitted; `win_rate_by_strength` and `losses` are by C."""

    win_rate: float
    standard_error: float
    weights: Weights
    strength: float | None = None
    win_rate_by_strength: Mapping[float, float] | None = None
    losses: Mapping[float, float] | None = None  # held out, nats a row


def alpaca_win_rate(preference_N: np.ndarray) -> AlpacaWinRate:
    """Raises UserError where no row has a preference."""
    preference_N = np.asarray(preference_N, float)
    shares = _shares(preference_N)
    if not len(shares):
        raise UserError(f"preference: none of {len(preference_N)} rows has one in 1 .. 2, nor 0 for a tie")
    # Rounded half to even, like upstream; 0 is a tie there too. What is outside of 1 .. 2 may thereby come in.
    discrete = _shares(np.where(preference_N == 1.5, 0.0, preference_N).round())
    return AlpacaWinRate(
        100 * float(shares.mean()),
        100 * _standard_error(shares),
        int((shares > 0.5).sum()),
        int((shares < 0.5).sum()),
        int((shares == 0.5).sum()),
        len(shares),
        100 * float(discrete.mean()) if len(discrete) else math.nan,
    )


def controlled_by(weights: Weights, difficulty_N: np.ndarray) -> AlpacaLengthControlled:
    """The length-controlled win rate that fitted weights give for instructions of these difficulties."""
    predicted_N = sigmoid(weights.model + weights.difficulty * np.asarray(difficulty_N, float))
    return AlpacaLengthControlled(100 * float(predicted_N.mean()), 100 * _standard_error(predicted_N), weights)


def alpaca_length_controlled(annotations: Annotations, gamed: Gamed) -> AlpacaLengthControlled:
    """Fit the model to these annotations, in the order of their instructions, and predict. The baseline against
    itself is 50 by definition.

    Raises UserError for another baseline than the gamed one, an instruction without a difficulty, and fewer rows with
    a preference than the fit has folds.
    """
    if gamed.baseline not in (None, annotations.baseline):
        raise UserError(
            f"generator_1 = {annotations.baseline!r} in the annotations of {annotations.model!r}; the gamed rows are "
            f"those of {gamed.baseline!r}"
        )
    difficulty_N = difficulties(annotations, gamed.difficulty)
    if annotations.model == annotations.baseline:
        return controlled_by(Weights(0.0, 0.0, 0.0), difficulty_N)
    count = alpaca_win_rate(annotations.preference_N).n_total  # says so where there is none
    if count < FOLDS:
        raise UserError(
            f"annotations of {annotations.model!r}: {count} with a preference; the length-controlled rate needs "
            f"{FOLDS} or more"
        )
    assert annotations.index_N is not None, "difficulties has found them"
    order_N = np.argsort(annotations.index_N, kind="stable")  # a row's place decides its fold
    difficulty_N, preference_N = difficulty_N[order_N], annotations.preference_N[order_N]
    share_N = np.where(preference_N == 0, 0.5, preference_N - 1)
    p = np.concatenate([gamed.preference_G, share_N])
    length_N = tanh_of_lengths(annotations.len_1_N[order_N], annotations.len_2_N[order_N])
    length = np.concatenate([np.tanh(gamed.std_delta_len_G), length_N])
    difficulty = np.concatenate([gamed.difficulty_G, difficulty_N])
    of_model = np.arange(len(p)) >= len(gamed.preference_G)
    answered = (p >= 0) & (p <= 1)
    X = np.stack([length, difficulty, of_model], 1)[answered]
    weight = np.where(of_model, 1.0, GAMED_WEIGHT)[answered]
    best = cross_validated(X, p[answered], weight)
    fits = {C: Weights(*fit(X, p[answered], weight, C).tolist()) for C in best.losses}
    by_strength = {C: controlled_by(weights, difficulty_N).win_rate for C, weights in fits.items()}
    result = controlled_by(Weights(*best.weights.tolist()), difficulty_N)
    return replace(result, strength=best.strength, win_rate_by_strength=by_strength, losses=best.losses)


def difficulties(annotations: Annotations, difficulty: Mapping[int, float]) -> np.ndarray:
    """[N]. Raises UserError for rows without an index, and an instruction whose difficulty is not known."""
    if annotations.index_N is None:
        raise UserError(
            f"annotations of {annotations.model!r}: the rows have no index, and a position says nothing; give the "
            "baseline's model_outputs.json as --instructions"
        )
    if unknown := [i for i in annotations.index_N.tolist() if i not in difficulty]:
        raise UserError(
            f"index = {unknown[0]} in the annotations of {annotations.model!r}: no difficulty is known for it; "
            f"the {len(difficulty)} known ones are {min(difficulty, default=0)} .. {max(difficulty, default=0)}"
        )
    return np.array([difficulty[i] for i in annotations.index_N.tolist()], float)


def _shares(preference: np.ndarray) -> np.ndarray:
    """preference - 1 of the rows that have a preference, in 0 .. 1; 0, which stands for a tie, becomes 0.5."""
    preference = np.where(preference == 0, 1.5, preference)
    return preference[(preference >= 1) & (preference <= 2)] - 1  # a comparison with NaN is false


def _standard_error(x: np.ndarray) -> float:
    return float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
