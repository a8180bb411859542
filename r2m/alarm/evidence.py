"""The texts that show best what the alarm is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any

# Of one held-out prompt: prompt (text, or a chat's messages), response, reference (its response), proxy, judged.
HeldOutText = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """The responses to one prompt in the best judged round and now, with their scores by the proxy and the judge."""

    prompt: Any
    then: str
    now: str
    proxy: tuple[float, float]
    judged: tuple[float, float]


def telling(then: Sequence[HeldOutText], now: Sequence[HeldOutText], most: int = 10) -> list[Turn]:
    """Of responses to the same prompts in the same order, those that the proxy likes better now and the judge less,
    by how much of both: changes are taken in standard deviations over all prompts, the largest first."""
    turns = [
        Turn(a["prompt"], a["response"], b["response"], (a["proxy"], b["proxy"]), (a["judged"], b["judged"]))
        for a, b in zip(then, now, strict=True)
    ]
    rises, falls = [t.proxy[1] - t.proxy[0] for t in turns], [t.judged[0] - t.judged[1] for t in turns]
    shown = [i for i in range(len(turns)) if rises[i] > 0 and falls[i] > 0]
    rise, fall = pstdev(rises) or 1.0, pstdev(falls) or 1.0
    return [turns[i] for i in sorted(shown, key=lambda i: -(rises[i] / rise + falls[i] / fall))[:most]]
