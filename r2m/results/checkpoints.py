"""A run's checkpoints by a judge that took no part in training: which is the best, and is it better than the last?

`r2m evaluate RUN --checkpoints` makes it and keeps it in the run's folder, as checkpoints.json.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter

from r2m.files import write_whole
from r2m.results.numbers import finite, number, sentence
from r2m.results.statistics import Estimate, paired_difference

TABLE = "checkpoints.json"


@dataclass(frozen=True)
class ScoredCheckpoint:
    """`scores`: the judge's, of a response to each held-out prompt; None where it has no answer. The others are means
    over the prompts, as evaluations in training have them."""

    step: int
    scores: list[float | None]
    proxy: float | None
    vanilla: float | None
    kl: float | None

    @property
    def score(self) -> float | None:
        answered = [score for score in self.scores if score is not None]
        return fmean(answered) if answered else None


@dataclass(frozen=True)
class CheckpointScores:
    """`judge`: its name, and whom it compares with if it does. `rows`: by step, of each checkpoint that was kept."""

    run: str
    config_hash: str
    judge: str
    prompts: int
    eval_seed: int
    rows: list[ScoredCheckpoint]

    @property
    def best(self) -> ScoredCheckpoint | None:
        """The highest score, the earliest of equals; None where the judge answered nothing."""
        judged = [row for row in self.rows if row.score is not None]
        return max(judged, key=lambda row: row.score or 0.0, default=None)

    def gain(self, row: ScoredCheckpoint, over: ScoredCheckpoint) -> Estimate | None:
        """The one's score less the other's, paired by prompt; None where no prompt has both."""
        pairs = [
            (a, b) for a, b in zip(row.scores, over.scores, strict=True) if a is not None and b is not None
        ]  # fmt: skip
        return paired_difference([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None

    def over_last(self) -> Estimate | None:
        """The best one's gain over the last. It was chosen among m, so that p is m - 1 times what it would be of one
        that was named before (Bonferroni)."""
        if self.best is None or (found := self.gain(self.best, self.rows[-1])) is None or found.p is None:
            return None
        return replace(found, p=min(1.0, found.p * max(1, len(self.rows) - 1)))

    def verdict(self) -> list[str]:
        """Sentences, the headline first."""
        best, last = self.best, self.rows[-1]
        if best is None or best.score is None:
            return [f"{self.judge} has judged no response: no checkpoint can be called the best."]
        if len(self.rows) == 1:
            return [f"One checkpoint was kept, of round {last.step}: there is none to choose it from."]
        among = f"of {len(self.rows)} that were kept, by {self.judge}"
        if best is last:
            return [f"The last checkpoint, of round {last.step}, is the best {among}."]
        found = self.over_last()
        told = [f"The best {among}, is that of round {best.step}."]
        if found is None:
            return [*told, f"No prompt is judged in both it and the last, of round {last.step}."]
        said = sentence(f"Round {best.step}", f"round {last.step}, the last,", self.judge, found, "prompt")
        mind = f"It was chosen on these prompts: p is multiplied by {len(self.rows) - 1}, and its "
        return [*told, said, f"{mind}{number(best.score)} is optimistic."]

    def write(self, folder: Path) -> None:
        best = self.best
        tree = asdict(self) | {
            "best": None if best is None else best.step,
            "over_last": None if (found := self.over_last()) is None else asdict(found),
            "verdict": self.verdict(),
        }
        write_whole(folder / TABLE, json.dumps(finite(tree), indent=1, allow_nan=False) + "\n")


def read_scores(folder: Path) -> CheckpointScores | None:
    """What a run's folder has; None where there is none, or none that is whole."""
    try:
        return _reader().validate_json((folder / TABLE).read_bytes())
    except (OSError, ValueError):
        return None


def scored_alike(there: CheckpointScores | None, asked: CheckpointScores, steps: Sequence[int]) -> bool:
    """Whether what is on file is what would be made. `asked`: without its rows, which are of these steps."""
    return there is not None and replace(there, rows=[]) == asked and [row.step for row in there.rows] == list(steps)


@cache
def _reader() -> TypeAdapter[CheckpointScores]:
    return TypeAdapter(CheckpointScores)
