"""The win rate of a model's responses against references or another model's, on the same prompts, by any judge.

A judge is asked about both orders of two responses and the two answers are averaged, since judges favour a place. A
prompt counts where both orders have an answer; what is left out is counted. Equal responses are a tie, and nobody
is asked.

The length-controlled rate is AlpacaEval's idea for data of which no difficulties are known (its
"length_controlled_minimal"): win = sigmoid(model + length · tanh(length difference in standard deviations)), read at
no difference. It takes out what the verdicts on these very prompts have to do with length, and what goes with it.

Axes: N prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from r2m.endpoint.judge_prompts import ResponsePair
from r2m.evaluation.length_glm import FOLDS, cross_validated, fit, sigmoid, tanh_of_lengths
from r2m.results.assessment import AtEqualLength
from r2m.results.statistics import LEVEL, Estimate, mean_estimate

REFITS = 1_000


class Judge(Protocol):
    """Which of two responses is better: 1 the first, 0 the second, 0.5 neither, None for no usable answer."""

    @property
    def name(self) -> str: ...

    def __call__(self, batch: Sequence[ResponsePair]) -> Sequence[float | None]: ...


@dataclass(frozen=True)
class ScoreJudge:
    """Prefers the higher score: a gold program, a reward model. A score that is NaN is no answer."""

    name: str
    scores: Callable[[Sequence[str], Sequence[str]], Sequence[float]]  # of prompts and responses

    def __call__(self, batch: Sequence[ResponsePair]) -> list[float | None]:
        prompts = [c.prompt for c in batch]
        first = self.scores(prompts, [c.first for c in batch])
        second = self.scores(prompts, [c.second for c in batch])
        pairs = zip(first, second, strict=True)
        return [None if a != a or b != b else 0.5 if a == b else float(a > b) for a, b in pairs]


@dataclass(frozen=True)
class WinRate:
    """Shares of 1, not per cent."""

    judge: str
    wins_N: tuple[float | None, ...]  # 1 won, 0 lost; None: left out
    rate: Estimate | None  # None where no prompt is left
    ties: int  # of wins_N, 0.5: equal responses, the judge's ties, and orders that contradict each other
    contradictory: int  # one response preferred in one order and the other one in the other
    identical: int  # equal responses
    unanswered: int  # left out: no answer, or in one order only
    length_controlled: AtEqualLength | None  # None for fewer than five prompts; bootstrap over prompts


def win_rate(
    judge: Judge, prompts: Sequence[str], responses: Sequence[str], rivals: Sequence[str], seed: int = 0
) -> WinRate:
    """How often `responses` win against `rivals`.

    Raises ValueError for lists of different lengths, no prompts, or a judge whose answers are not preferences.
    """
    if not len(prompts) == len(responses) == len(rivals) >= 1:
        raise ValueError(
            f"{len(prompts)} prompts, {len(responses)} responses, {len(rivals)} rivals: as many of each, at least one"
        )
    rows = list(zip(prompts, responses, rivals, strict=True))
    asked = [i for i, (_, ours, theirs) in enumerate(rows) if ours != theirs]
    as_is = [ResponsePair(*rows[i]) for i in asked]
    swapped = [ResponsePair(prompt, theirs, ours) for prompt, ours, theirs in as_is]
    answers = list(judge(as_is + swapped)) if asked else []
    if len(answers) != 2 * len(asked) or not all(a is None or 0 <= a <= 1 for a in answers):
        raise ValueError(
            f"judge = {judge.name!r}: an answer in 0 .. 1 or None is needed for each of {2 * len(asked)}"
        )
    wins: list[float | None] = [0.5] * len(rows)
    contradictory = 0
    for i, straight, reverse in zip(asked, answers[: len(asked)], answers[len(asked) :], strict=True):
        if straight is None or reverse is None:
            wins[i] = None
        else:
            wins[i] = (straight + 1 - reverse) / 2
            contradictory += (straight - 0.5) * (0.5 - reverse) < 0
    kept = [i for i, win in enumerate(wins) if win is not None]
    values = np.array([wins[i] for i in kept], float)
    lengths, rival_lengths = ([len(rows[i][side]) for i in kept] for side in (1, 2))
    return WinRate(
        judge=judge.name,
        wins_N=tuple(wins),
        rate=mean_estimate(values.tolist(), seed) if kept else None,
        ties=int((values == 0.5).sum()),
        contradictory=contradictory,
        identical=len(rows) - len(asked),
        unanswered=len(rows) - len(kept),
        length_controlled=length_controlled(values, lengths, rival_lengths, seed),
    )


def length_controlled(
    wins_N: np.ndarray, lengths: Sequence[int], rival_lengths: Sequence[int], seed: int = 0
) -> AtEqualLength | None:
    """The win rate at equal lengths (characters), its interval with the penalty's weight kept; None for fewer than
    five rows."""
    wins_N = np.asarray(wins_N, float)
    if len(wins_N) < FOLDS:
        return None
    ones = np.ones(len(wins_N))
    X_N2 = np.stack([tanh_of_lengths(np.array(lengths), np.array(rival_lengths)), ones], 1)
    best = cross_validated(X_N2, wins_N, ones)
    counts = np.random.default_rng(seed).multinomial(len(ones), ones / len(ones), REFITS)  # of a prompt in a draw
    refits = [sigmoid(fit(X_N2, wins_N, drawn, best.strength, best.weights)[1]) for drawn in counts]
    low, high = np.quantile(refits, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return AtEqualLength(float(sigmoid(best.weights[1])), (float(low), float(high)))
