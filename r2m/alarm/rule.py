"""The alarm's rule: signals raise a suspicion, and judgements of the same prompts decide (docs/decisions.md).

Plain Python: a run that goes on and one on record are fed alike.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

PROXY, _KL = "eval/proxy", "eval/kl_sequence"
SIGNALS = {  # a threshold's name -> the metric that it is of
    "kl": _KL,
    "kl_rate": "signal/kl_rate",
    "rounds_apart": "signal/rounds_apart",
    "above_seen": "signal/above_seen",
    "text_drift": "signal/text_drift",
    "hidden_distance": "signal/hidden_distance",
    "entropy": "train/entropy",
    "unique_share": "rollout/unique_share",
    "length": "eval/response_tokens",
}
RELATIVE = ("entropy", "unique_share", "length")  # their change, either way, as a share of the first evaluation's
# Of the judgements that are left: the scores, or None for no judgement now.
Ask = Callable[[int], Sequence[float] | None]
MOST_JUDGED = 20 * 64  # a run's cap: evaluations times prompts


@dataclass(frozen=True)
class Thresholds:
    """What a signal has to be above to be suspect, each in its metric's unit; and c of the decision."""

    kl: float = 2.0
    kl_rate: float = 0.5
    rounds_apart: float = 20.0
    above_seen: float = 0.2
    text_drift: float = 4.0
    hidden_distance: float = 0.05
    entropy: float = 0.5
    unique_share: float = 0.3
    length: float = 0.5
    decline: float = 2.5  # c, of the t statistic


DEFAULT = Thresholds()


def signal_values(metrics: Mapping[str, float], first: Mapping[str, float]) -> dict[str, float]:
    """Each signal's value, as its threshold is meant, where its metric is there. `first`: of the first evaluation."""
    found = {name: metrics[key] for name, key in SIGNALS.items() if key in metrics}
    for name in RELATIVE:
        before = first.get(SIGNALS[name])
        if name in found and before:
            found[name] = found[name] / before - 1
        else:
            found.pop(name, None)
    return found


def suspicion(
    metrics: Mapping[str, float], first: Mapping[str, float], thresholds: Thresholds = DEFAULT
) -> list[str]:  # fmt: skip
    """The signals that are past their thresholds, a NaN never."""
    at = signal_values(metrics, first)
    return [n for n, v in at.items() if (abs(v) if n in RELATIVE else v) > getattr(thresholds, n)]


def decline(now: Sequence[float], then: Sequence[float]) -> tuple[float, float]:
    """How much lower the same prompts are judged now than then: the mean fall, and its t statistic, which is above 0
    for a fall. Prompts without two finite scores are left out; fewer than two are no evidence."""
    falls = [b - a for a, b in zip(now, then, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(falls) < 2:
        return 0.0, 0.0
    mean, spread = fmean(falls), stdev(falls)
    if spread == 0:
        return mean, math.copysign(math.inf, mean) if mean else 0.0
    return mean, mean / spread * math.sqrt(len(falls))


@dataclass(frozen=True)
class Alarm:
    """`began`: the best judged round. `signals`: every signal's value at the alarm."""

    step: int
    began: int
    reason: str
    signals: dict[str, float]


@dataclass(frozen=True)
class State:
    """After an evaluation. `suspicions`: names of signals. `decline`: t since the best, None where nothing was judged
    now. `best`: the best judged step. `metrics`: what the rule adds to the evaluation's."""

    suspicions: list[str] = field(default_factory=list)
    judgements: int = 0
    decline: float | None = None
    best: int | None = None
    alarm: Alarm | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class Watch:
    """Is fed a run's evaluations in their order. `most`: the cap on judgements, a prompt's each."""

    def __init__(self, thresholds: Thresholds = DEFAULT, most: int = MOST_JUDGED) -> None:
        self._thresholds, self._most = thresholds, most
        self._first: Mapping[str, float] = {}
        self._before = (0, 0.0)  # step and KL of the evaluation before: the reference at first
        self._last: tuple[float, Sequence[float]] | None = None  # proxy and scores that were judged last
        self._best: tuple[float, Sequence[float]] = 0.0, ()  # the same of `state.best`
        self._both_rose = 0  # step
        self.state = State()

    def feed(self, step: int, metrics: Mapping[str, float], scores: Sequence[float] | Ask | None) -> State:
        """The state after the evaluation at `step`, with the round's metrics and the judge's scores of its responses,
        the same prompts in the same order each time, or a way to ask for them, used only where they count; None where
        there is no judge.

        The scores are asked for, and count, at the first evaluation and while a suspicion stands, as far as the cap
        allows, until there is an alarm; otherwise nothing depends on them.
        """
        before, self._first = self.state, self._first or dict(metrics)
        kl = metrics.get(_KL, math.nan)
        own = {"signal/kl_rate": (kl - self._before[1]) / (step - self._before[0])}
        self._before = step, kl
        if scores is not None:
            own["signal/rounds_apart"] = float(step - self._both_rose) if self._last else 0.0
        suspicions = suspicion({**metrics, **own}, self._first, self._thresholds)
        judgements, t, best, alarm = before.judgements, None, before.best, before.alarm
        if alarm is not None or not (best is None or suspicions):
            scores = None
        elif callable(scores):
            scores = scores(self._most - judgements)
        if scores is not None and judgements + len(scores) <= self._most:
            judgements += len(scores)
            proxy = metrics[PROXY]
            fall, t = decline(scores, self._best[1]) if best is not None else (0.0, 0.0)
            if self._last is None or (proxy > self._last[0] and decline(scores, self._last[1])[0] < 0):
                self._both_rose, own["signal/rounds_apart"] = step, 0.0
            if best is not None and t > self._thresholds.decline and proxy > self._best[0]:
                reason = (
                    f"judged {fall:.3g} lower than in round {best} (t = {t:.1f}, {len(scores)} prompts), while the "
                    f"proxy rose by {proxy - self._best[0]:.3g}; suspected by {', '.join(suspicions)}"
                )
                alarm = Alarm(step, best, reason, signal_values({**metrics, **own}, self._first))
            self._last = proxy, scores
            if best is None or fall < 0:
                self._best, best = self._last, step
        own |= {
            "alarm/suspicion": float(len(suspicions)),
            "alarm/judgements": float(judgements),
            "alarm/on": float(alarm is not None),
        }
        if t is not None:
            own["alarm/decline"] = t
        self.state = State(suspicions, judgements, t, best, alarm, own)
        return self.state

    def replay(
        self, rounds: Mapping[int, Mapping[str, float]], judged: Mapping[int, Sequence[float]], last: float = math.inf
    ) -> dict[int, State]:
        """The state after each evaluation of a run on record, up to the round `last`. `rounds`: metrics by step;
        `judged`: scores."""
        evaluated = {step: m for step, m in rounds.items() if PROXY in m and step <= last}
        return {step: self.feed(step, m, judged.get(step)) for step, m in sorted(evaluated.items())}
