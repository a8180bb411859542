"""Texts of an arm to read: best and worst, and those that the reward in training liked and gold did not.

A text's gap is its proxy less its gold, each standardised over all the texts of its arm that have both (population
standard deviation; where all are equal, 0): scores and gold have no unit in common.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

from r2m.results.table import Arm

LIKED = "Liked in training, not by gold"


@dataclass(frozen=True)
class ArmText:
    """`prompt`: text, or a chat's messages. `round`: None for the trained policy on held-out prompts."""

    run: str
    round: int | None
    prompt: Any
    response: str
    proxy: float
    vanilla: float
    gold: float  # NaN where the task has none
    gap: float = math.nan


def texts_of(arm: Arm) -> list[ArmText]:
    """The samples in the journals and the rows of the assessments, with their gaps. Of equal responses to a prompt
    the last."""
    found = {}
    for result in arm.results.values():
        run = result.view.run_id
        sampled = [(step, row) for step, rows in result.view.samples.items() for row in rows]
        assessed = result.assessment.rows if result.assessment else []
        for step, row in [*sampled, *((None, vars(row)) for row in assessed)]:
            scores = (_number(row.get(key)) for key in ("proxy", "vanilla", "gold"))
            text = ArmText(run, step, row["prompt"], row["response"], *scores)
            found[run, str(text.prompt), text.response] = text
    texts = list(found.values())
    both = [t for t in texts if math.isfinite(t.proxy) and math.isfinite(t.gold)]
    proxy, gold = _standardised([t.proxy for t in both]), _standardised([t.gold for t in both])
    gaps = {id(t): proxy(t.proxy) - gold(t.gold) for t in both}
    return [replace(t, gap=gaps.get(id(t), math.nan)) for t in texts]


def picks(texts: Sequence[ArmText], most: int = 3) -> dict[str, list[ArmText]]:
    """Title -> texts: the best and the worst by gold (by the vanilla reward where there is no gold), and those with
    the largest gaps above 0. Later rounds first among equals. No text is both best and worst, and what several runs
    said is there once."""
    latest = sorted(texts, key=lambda t: -math.inf if t.round is None else -t.round)
    latest = list({(str(t.prompt), t.response): t for t in reversed(latest)}.values())[::-1]
    golden = [t for t in latest if math.isfinite(t.gold)]
    name = "gold" if golden else "vanilla"
    judged = golden or [t for t in latest if math.isfinite(t.vanilla)]
    by = "gold" if golden else "the vanilla reward"
    best = sorted(judged, key=lambda t: -getattr(t, name))[: min(most, -(-len(judged) // 2))]
    worst = sorted((t for t in judged if t not in best), key=lambda t: getattr(t, name))[:most]
    gaps = sorted((t for t in golden if t.gap > 0), key=lambda t: -t.gap)[:most]
    out = {f"Best by {by}": best, f"Worst by {by}": worst, LIKED: gaps}
    return {title: chosen for title, chosen in out.items() if chosen}


def prompt_text(prompt: str | Sequence[dict[str, str]]) -> str:
    """A prompt, or the messages of a chat, to be read."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in prompt)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _standardised(values: Sequence[float]) -> Callable[[float], float]:
    centre, width = (fmean(values), pstdev(values)) if values else (0.0, 0.0)
    return lambda value: (value - centre) / width if width > 0 else 0.0
