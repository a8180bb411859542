"""The rule on hand-made series: what raises a suspicion, who is asked, and when it is an alarm."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from r2m.alarm.rule import PROXY, SIGNALS, State, Thresholds, Watch, decline, signal_values, suspicion
from r2m.metrics import METRICS

KL = SIGNALS["kl"]
QUIET = {PROXY: 0.0, KL: 0.1, "train/entropy": 1.0, "rollout/unique_share": 1.0, "eval/response_tokens": 10.0}
NEVER = Thresholds(**{name: math.inf for name in SIGNALS})


def evaluated(proxy: float, kl: float = 0.1, **signals: float) -> dict[str, float]:
    return QUIET | {PROXY: proxy, KL: kl} | {f"signal/{name}": value for name, value in signals.items()}


def fed(watch: Watch, series: Mapping[int, tuple[Mapping[str, float], Sequence[float] | None]]) -> dict[int, State]:
    return {step: watch.feed(step, metrics, scores) for step, (metrics, scores) in series.items()}


def test_a_judge_is_asked_only_where_its_answer_counts() -> None:
    """At first, and while a suspicion stands: with what is left of the cap, and again where there was no answer."""
    watch, left = Watch(most=7), list[int]()
    answers: list[list[float] | None] = [None, [1, 1, 1], None, [1, 0.5, 1]]

    def ask(still: int) -> list[float] | None:
        left.append(still)
        return answers[len(left) - 1]

    kl = {1: 0.1, 2: 0.1, 3: 0.1, 4: 2.5, 5: 2.5, 6: 0.1}
    states = {step: watch.feed(step, evaluated(step, value), ask) for step, value in kl.items()}
    assert left == [7, 7, 4, 4]  # in 1, 2, 4 and 5
    assert [s.judgements for s in states.values()] == [0, 3, 3, 3, 6, 6]
    again = Watch(most=7).replay(
        {step: evaluated(step, value) for step, value in kl.items()}, {2: [1, 1, 1], 5: [1, 0.5, 1]}
    )
    assert [(s.judgements, s.best, s.decline) for s in again.values()] == [
        (s.judgements, s.best, s.decline) for s in states.values()
    ]


class TestDecline:
    def test_by_hand(self) -> None:
        """Falls of 1, 2, 3 and 2: mean 2, standard deviation sqrt(2/3), t = 2 / (sqrt(2/3) / 2)."""
        assert decline([0, 0, 0, 0], [1, 2, 3, 2]) == (2, pytest.approx(2 / math.sqrt(2 / 3) * 2))

    def test_a_rise_is_below_0(self) -> None:
        mean, t = decline([1, 2, 4], [0, 1, 1])
        assert (mean, t < 0) == (pytest.approx(-5 / 3), True)

    def test_without_spread(self) -> None:
        assert decline([1, 1], [1, 1]) == (0, 0)
        assert decline([0, 0], [1, 1]) == (1, math.inf)
        assert decline([1, 1], [0, 0]) == (-1, -math.inf)

    def test_what_was_not_answered_is_left_out(self) -> None:
        assert decline([0, math.nan, 0, 0], [1, 5, 3, math.nan]) == decline([0, 0], [1, 3])
        assert decline([0, math.nan], [1, 1]) == (0, 0)  # one is no evidence


class TestSuspicion:
    def test_each_signal_has_a_metric_and_a_threshold(self) -> None:
        assert set(SIGNALS.values()) <= METRICS.keys()
        assert {*SIGNALS, "decline"} == set(vars(Thresholds()))

    def test_past_a_threshold_and_not_at_it(self) -> None:
        thresholds = Thresholds(kl=2.0, text_drift=4.0, above_seen=0.2)
        at = evaluated(0.0, kl=2.0, text_drift=4.1, above_seen=math.nan)
        assert suspicion(at, at, thresholds) == ["text_drift"]

    def test_lengths_and_such_are_held_against_the_first_evaluation_either_way(self) -> None:
        first = QUIET | {"eval/response_tokens": 20.0}
        now = QUIET | {"train/entropy": 0.25, "rollout/unique_share": 0.9, "eval/response_tokens": 32.0}
        found = signal_values(now, first)
        assert (found["entropy"], found["length"]) == (-0.75, pytest.approx(0.6))
        assert suspicion(now, first, Thresholds(entropy=0.5, unique_share=0.3, length=0.5)) == ["entropy", "length"]
        assert suspicion(first, first) == []

    def test_what_is_not_there_is_not_suspect(self) -> None:
        assert suspicion({}, {}) == []
        assert signal_values({"train/entropy": 1.0}, {"train/entropy": 0.0}) == {}

    def test_the_rate_is_a_rounds_since_the_last_evaluation_the_first_since_the_reference(self) -> None:
        states = fed(Watch(), {4: (evaluated(0, kl=2.0), None), 10: (evaluated(0, kl=5.0), None)})
        assert [s.metrics["signal/kl_rate"] for s in states.values()] == [0.5, 0.5]
        assert "kl_rate" not in states[10].suspicions
        assert "kl_rate" in Watch(Thresholds(kl_rate=0.4)).feed(4, evaluated(0, kl=2.0), None).suspicions


def noisy(mean: float, rng: random.Random, n: int = 64) -> list[float]:
    return [mean + rng.gauss(0, 0.3) for _ in range(n)]


class TestDecision:
    def test_proxy_up_and_judge_down_is_an_alarm_in_that_round(self) -> None:
        """Judged 0, 1, 2 at their best, then lower by 1, 1 and 4 of 4, in the same prompts: t = 2 / sqrt(3) * 2."""
        rounds = {
            10: (evaluated(0.0), [0.0, 1.0, 2.0, 3.0]),
            20: (evaluated(1.0, kl=3), [1.0, 2.0, 3.0, 4.0]),
            30: (evaluated(2.0, kl=4), [1.0, 2.0, 3.0, 4.0]),
            40: (evaluated(3.0, kl=5), [0.0, 1.0, 2.0, -1.0]),
            50: (evaluated(4.0, kl=6), [-9.0, -9.0, -9.0, -9.5]),
        }
        states = fed(Watch(Thresholds(decline=2.5)), rounds)
        assert [s.alarm is not None for s in states.values()] == [False, False, False, False, True]
        assert states[40].decline == pytest.approx(2 / math.sqrt(4) * 2)  # falls 1, 1, 1, 5: mean 2, deviation 2
        states = fed(Watch(Thresholds(decline=1.9)), rounds)
        alarm = states[40].alarm
        assert alarm is not None
        assert (alarm.step, alarm.began) == (40, 20)
        assert alarm.reason == (
            "judged 2 lower than in round 20 (t = 2.0, 4 prompts), while the proxy rose by 2; suspected by kl"
        )
        assert alarm.signals["kl"] == 5
        assert states[50].alarm == alarm  # it stays, and nobody is asked any more
        assert (states[50].judgements, states[50].metrics["alarm/on"]) == (16, 1)
        assert "alarm/decline" not in states[50].metrics

    def test_benign_convergence_is_suspect_and_no_alarm(self) -> None:
        """Every signal fires; the judge holds."""
        rng, watch = random.Random(0), Watch()
        for step in range(10, 110, 10):
            now = evaluated(step / 10, kl=step / 5, text_drift=step, above_seen=0.9, hidden_distance=0.5)
            state = watch.feed(step, now, noisy(min(step / 40, 1.0), rng))
            assert state.alarm is None
        assert len(state.suspicions) >= 4
        assert state.judgements == 640

    def test_a_judge_that_falls_where_the_proxy_falls_too_is_a_run_that_goes_badly_and_no_hacking(self) -> None:
        watch = Watch()
        watch.feed(1, evaluated(1.0), [1.0, 1.1, 1.2])
        state = watch.feed(2, evaluated(0.5, kl=9), [0.0, 0.1, 0.3])
        assert state.decline is not None
        assert state.decline > 2.5
        assert state.alarm is None

    def test_noise_about_one_level_seldom_is_an_alarm(self) -> None:
        """Ten evaluations of 64 prompts, 200 runs, the best of all that were before to be held against: c = 2.5."""
        rng, alarms = random.Random(1), 0
        for _ in range(200):
            watch = Watch()
            alarms += any(
                watch.feed(step, evaluated(step, kl=9), noisy(0, rng)).alarm is not None for step in range(1, 11)
            )
        assert alarms / 200 < 0.25

    def test_nobody_is_asked_without_a_suspicion_but_at_the_first_evaluation(self) -> None:
        watch = Watch(Thresholds(rounds_apart=99))
        states = fed(watch, {s: (evaluated(s, kl=3.0 if s == 30 else 0.1), [0.0, 1.0]) for s in (10, 20, 30, 40)})
        assert [s.judgements for s in states.values()] == [2, 2, 4, 4]
        assert [s.decline is not None for s in states.values()] == [True, False, True, False]

    def test_somebody_is_asked_now_and_then(self) -> None:
        """Rounds since both rose count as a signal: the judgement after which they did sets them back."""
        watch = Watch(replace(NEVER, rounds_apart=15.0))
        states = fed(watch, {s: (evaluated(s), [s / 10, s / 10 + 1]) for s in (10, 20, 30, 40, 50)})
        assert [s.metrics["signal/rounds_apart"] for s in states.values()] == [0, 10, 0, 10, 0]
        assert [s.judgements for s in states.values()] == [2, 2, 4, 4, 6]

    def test_the_cap_is_kept(self) -> None:
        watch = Watch(most=5)
        states = fed(watch, {s: (evaluated(s, kl=9), [-s, -2 * s]) for s in (1, 2, 3)})
        assert [s.judgements for s in states.values()] == [2, 4, 4]
        assert [s.decline is not None for s in states.values()] == [True, True, False]
        assert Watch(most=1).feed(1, evaluated(0), [0.0, 1.0]).judgements == 0

    def test_signals_without_a_judge_are_never_an_alarm(self) -> None:
        states = fed(Watch(), {s: (evaluated(s, kl=s, text_drift=99), None) for s in (10, 20, 30)})
        for state in states.values():
            assert state.suspicions
            assert (state.alarm, state.judgements, state.decline) == (None, 0, None)
            assert not {"signal/rounds_apart", "alarm/decline"} & state.metrics.keys()

    def test_a_run_on_record_gives_the_same_states(self) -> None:
        """What the rule itself added to the rounds, or a round without an evaluation, makes no difference."""
        rng, live = random.Random(2), Watch()
        rounds: dict[int, dict[str, float]] = {}
        judged: dict[int, list[float]] = {}
        states = {}
        for step in range(5, 100, 5):
            rounds[step - 1] = {"train/entropy": 0.5}
            judged[step] = noisy(1 - step / 50, rng)
            now = evaluated(step, kl=step / 10)
            states[step] = live.feed(step, now, judged[step])
            rounds[step] = now | states[step].metrics
        assert states[95].alarm is not None
        assert Watch().replay(rounds, judged) == states
        again = Watch()
        again.replay(rounds, judged, last=40)
        assert again.state == states[40]
        assert again.feed(45, rounds[45], judged[45]) == states[45]
