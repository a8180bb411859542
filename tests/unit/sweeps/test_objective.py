"""Objectives and constraints, from journals as a run writes them."""

import math
from pathlib import Path

import pytest

from r2m.runs.journal import Journal, JournalView, read
from r2m.sweeps.objective import Constraint, Objective, check_judged, value_of, violations

KL = "eval/kl_sequence"


def journal(folder: Path, rounds: dict[int, dict[str, float]]) -> JournalView:
    with Journal(folder / "journal.jsonl") as j:
        j.start("run", "forum", "p", {}, {}, {}, "c", "d", [])
        for step, metrics in rounds.items():
            j.round(step, metrics)
    return read(folder / "journal.jsonl")


class TestObjective:
    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            ({"metric": "reward/proxy"}, "metric = 'reward/proxy': R2M trains this reward model, .* flatters itself"),
            ({"metric": "eval/proxy"}, "R2M trains this reward model"),
            ({"metric": "reward/gold"}, "measured while training, not on held-out prompts; allowed: .*eval/gold"),
            ({"metric": "eval/golf"}, "metric = 'eval/golf': no such metric; allowed: .*eval/gold"),
            ({"metric": "eval/vanilla"}, "give matched_kl"),
            ({"metric": KL}, "allowed with direction: minimize"),
            ({"metric": KL, "direction": "minimize", "matched_kl": 3}, "without matched_kl"),
            ({"metric": "eval/gold", "matched_kl": 0}, "greater than 0"),
        ],
    )
    def test_refused(self, yaml: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Objective.model_validate(yaml)

    def test_together(self) -> None:
        gold = Objective(metric="eval/gold")
        kl = Objective(metric=KL, direction="minimize")
        at = [Objective(metric="eval/vanilla", matched_kl=x) for x in (5, 10, 10)]
        check_judged([gold, kl], [], gold=True, judge=False)
        check_judged(at[:2], [], gold=False, judge=False)
        with pytest.raises(ValueError, match=r"objectives.0: metric = 'eval/kl_sequence': allowed second"):
            check_judged([kl, gold], [], gold=True, judge=False)
        with pytest.raises(ValueError, match=r"objectives.2: metric = 'eval/vanilla': given twice"):
            check_judged(at, [], gold=True, judge=False)
        with pytest.raises(ValueError, match=r"objectives.1: metric = 'eval/gold': the task has no gold"):
            check_judged([at[0], gold], [], gold=False, judge=False)
        with pytest.raises(ValueError, match=r"constraints.0: metric = 'eval/gold'"):
            check_judged(at[:1], [Constraint(metric="eval/gold", min=0)], gold=False, judge=False)


class TestValue:
    def test_it_is_the_last_evaluation(self, tmp_path: Path) -> None:
        view = journal(tmp_path, {1: {"x": 1}, 2: {"eval/gold": 0.5}, 4: {"eval/gold": 0.25}, 5: {"x": 1}})
        assert value_of(view, Objective(metric="eval/gold")) == 0.25

    def test_none_yet(self, tmp_path: Path) -> None:
        view = journal(tmp_path, {1: {"reward/gold": 1.0}})
        assert math.isnan(value_of(view, Objective(metric="eval/gold")))
        assert math.isnan(value_of(view, Objective(metric="eval/vanilla", matched_kl=3)))

    def test_a_nan_is_a_nan(self, tmp_path: Path) -> None:
        view = journal(tmp_path, {2: {"eval/gold": 0.5}, 4: {"eval/gold": math.nan}})
        assert math.isnan(value_of(view, Objective(metric="eval/gold")))

    @pytest.mark.parametrize(
        ("nats", "expected"),
        [
            (1.0, 10.0),  # beyond it at the first evaluation already
            (2.0, 10.0),
            (5.0, 25.0),  # half way from KL 2 to 8, and from 10 to 40
            (8.0, 40.0),
            (9.0, 55.0),  # the first crossing, from 8 to 10, though KL comes back to 9 later
            (20.0, 0.0),  # never: the last
        ],
    )
    def test_at_matched_kl(self, tmp_path: Path, nats: float, expected: float) -> None:
        points = [(2.0, 10.0), (8.0, 40.0), (10.0, 70.0), (6.0, 5.0), (9.5, 0.0)]
        view = journal(tmp_path, {i: {KL: kl, "eval/vanilla": v} for i, (kl, v) in enumerate(points, 1)})
        assert value_of(view, Objective(metric="eval/vanilla", matched_kl=nats)) == pytest.approx(expected)


class TestViolations:
    def test_by_how_much(self, tmp_path: Path) -> None:
        view = journal(tmp_path, {1: {KL: 50.0}, 2: {KL: 23.0, "eval/response_tokens": 4.0}})
        constraints = [
            Constraint(metric=KL, max=20),
            Constraint(metric=KL, max=23),
            Constraint(metric="eval/response_tokens", min=5, max=9),
            Constraint(metric="eval/response_tokens", min=3, max=9),
            Constraint(metric="eval/gold", min=0),
        ]
        assert violations(view, constraints) == [3.0, 0.0, 1.0, -1.0, math.inf]

    def test_nan_is_not_kept(self, tmp_path: Path) -> None:
        assert violations(journal(tmp_path, {1: {KL: math.nan}}), [Constraint(metric=KL, max=20)]) == [math.inf]

    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            ({"metric": KL}, "give max, min or both"),
            ({"metric": KL, "min": 2, "max": 1}, "min = 2.0 is greater than max = 1.0"),
            ({"metric": "reward/proxy", "max": 1}, "flatters itself"),
            ({"metric": "kl/sequence", "max": 1}, "not on held-out prompts"),
        ],
    )
    def test_refused(self, yaml: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Constraint.model_validate(yaml)
