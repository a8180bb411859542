"""The assessment of a finished run, or of a model under a recipe: by something else than the reward that was trained.

`r2m.evaluation` makes it. A run's is kept in its folder as assessment.json, which has these fields in this order, and
every number in it is finite or null. `r2m compare` and `r2m paper` read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from r2m.files import write_whole
from r2m.results.numbers import finite
from r2m.results.statistics import Interval
from r2m.runs.folder import ASSESSMENT

VERSION = 1

Matrix = list[list[float]]  # of cosines
Shown = str | list[dict[str, Any]]  # a prompt: text, or a chat's messages


@dataclass(frozen=True)
class Response:
    """One response to a held-out prompt. `rival`: the supervised policy's; `vanilla`: by the vanilla reward model;
    `proxy`: with feedback at ω = Ω; `kl`: nats, k1 against the supervised policy."""

    prompt: Shown
    response: str
    gold: float | None
    vanilla: float | None
    proxy: float | None
    kl: float | None
    tokens: int
    ended: bool
    rival: str
    rival_gold: float | None
    rival_vanilla: float | None
    reference: str | None
    reference_gold: float | None


@dataclass(frozen=True)
class AtEqualLength:
    """A share of 1, with its 95 % interval."""

    rate: float
    interval: Interval


@dataclass(frozen=True)
class Wins:
    """A win rate. `n`: prompts that count, `ties` of them, `identical` of these; `unanswered` are left out."""

    judge: str
    against: str  # "sft", "reference", or a rival's name
    rate: float | None
    interval: Interval | None
    ties: int
    identical: int
    unanswered: int
    n: int
    length_controlled: AtEqualLength | None


@dataclass(frozen=True)
class Accuracy:
    """Of a reward model on preference pairs. `interval` is Wilson's, 95 %: it takes pairs for independent, also those
    of one prompt."""

    accuracy: float
    interval: Interval
    ties: int  # pairs whose scores are equal: they count as wrong
    n: int


@dataclass(frozen=True)
class PairSet:
    """Table 3 on a set of pairs: accuracy without feedback, and with it before and after training.

    `left_out_why`: LeftOut.tree. `unknown`: the share of the reward model's tokens that stand for unknown ones.
    """

    pairs: str
    n: int
    left_out: int
    left_out_why: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: float | None = None
    without: Accuracy | None = None
    before: Accuracy | None = None
    after: Accuracy | None = None


@dataclass(frozen=True)
class Similarities:
    """Mean cosines; `hacking` and `normal` are over pairs of different responses."""

    hacking: float
    normal: float
    cross: float


@dataclass(frozen=True)
class Similarity(Similarities):
    """Table 1, of all tokens and of the response's alone, and Fig. 1a: the matrix of one prompt's responses."""

    response_only: Similarities
    prompts: int
    per_prompt: int
    matrix: Matrix
    labels: list[str]
    responses: list[str]
    what: str


@dataclass(frozen=True)
class Followed:
    """A response over training. `matrix`: between the policies of all steps."""

    prompt: Shown
    response: str
    matrix: Matrix


@dataclass(frozen=True)
class OverTraining:
    """Fig. 1b. `mean`: of the matrices of `pairs`."""

    steps: list[int]
    mean: Matrix
    pairs: list[Followed]


@dataclass(frozen=True)
class Assessment:
    """`means`: over the rows, of gold, vanilla, proxy, kl, tokens, characters, and the task's own measures."""

    version: int
    run: str | None  # None: of a model
    arm: str
    seed: int
    config_hash: str
    prompts: int
    eval_seed: int
    rows: list[Response]
    means: dict[str, float | None]
    win_rates: list[Wins]
    reward_accuracy: list[PairSet]
    similarity: Similarity | None
    over_training: OverTraining | None

    def finite(self) -> Assessment:
        """As it is on file: None for every number that is not finite."""
        return _reader().validate_json(self._json(), strict=True)

    def write(self, folder: Path) -> None:
        write_whole(folder / ASSESSMENT, self._json() + "\n")

    def _json(self) -> str:
        return json.dumps(finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False)


def read_assessment(folder: Path) -> Assessment | None:
    """That of a run's folder; None where there is none, or none that is whole and of this version."""
    try:
        text = (folder / ASSESSMENT).read_bytes().replace(b'"judge": "frozen"', b'"judge": "vanilla"')  # as it was
        found = _reader().validate_json(text, strict=True)
    except (OSError, ValueError):
        return None
    return found if found.version == VERSION and found.prompts == len(found.rows) else None


@cache
def _reader() -> TypeAdapter[Assessment]:
    return TypeAdapter(Assessment)
