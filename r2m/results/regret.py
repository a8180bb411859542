"""What choosing a checkpoint by a signal costs in gold, of a run whose gold is on record."""

import math
from collections.abc import Collection, Mapping

from r2m.runs.journal import JournalView


def gold_regret(
    view: JournalView, outside: str | Mapping[int, float] = "eval/win_rate", rounds: Collection[int] | None = None
) -> dict[str, float]:
    """The best gold among the candidates less that of the one chosen: by the outside signal, by the highest proxy,
    and by taking the last; keys "outside", "proxy" and "last".

    Args:
        outside: a metric of the run, or a judgement by round.
        rounds: the candidates, such as those whose checkpoints were kept; all with a held-out gold if not given.

    Of equals the earliest is chosen. NaN where no candidate has the signal, or there is none.
    """
    signals = {"outside": _series(view, outside) if isinstance(outside, str) else outside}
    signals["proxy"] = _series(view, "eval/proxy")
    gold = {
        step: value
        for step, value in _series(view, "eval/gold").items()
        if math.isfinite(value) and (rounds is None or step in rounds)
    }
    chosen = {name: _highest(signal, gold) for name, signal in signals.items()} | {"last": max(gold, default=None)}
    best = max(gold.values(), default=math.nan)
    return {name: math.nan if step is None else best - gold[step] for name, step in chosen.items()}


def _series(view: JournalView, metric: str) -> dict[int, float]:
    return dict(zip(*view.series(metric), strict=True))


def _highest(signal: Mapping[int, float], candidates: Collection[int]) -> int | None:
    there = [step for step in sorted(candidates) if math.isfinite(signal.get(step, math.nan))]
    return max(there, key=lambda step: signal[step], default=None)
