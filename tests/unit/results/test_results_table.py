"""A run's place in the table, and the difference of two arms on the seeds that both have."""

import math

import pytest

from r2m.results.readings import last, mean_curve
from r2m.results.table import Result, by_trial, paired, values


def of_sweep(label):
    return {"parent": "s", "tags": {"r2m.sweep": "s", "r2m.trial": label, "r2m.role": "search"}}


def test_a_sweeps_runs_are_its_arms_by_what_they_are_called_there(runs):
    for label, seed in (("trial 0", 1), ("trial 0", 0), ("RLOO", 0), ("trial 1", 0)):
        runs.run(f"{label.replace(' ', '')}-{seed}", (0.5,), seed=seed, start=of_sweep(label))
    rows = by_trial(runs.results())
    assert {label: list(arm.results) for label, arm in rows.items()} == {
        "trial 0": [0, 1], "RLOO": [0], "trial 1": [0],
    }  # fmt: skip
    assert rows["trial 0"].kind == "RLOO"  # equal settings are other arms in a search: a point may be drawn twice
    assert [view.run_id for view in rows["trial 0"].on([1, 7, 0]).values()] == ["trial0-1", "trial0-0"]


def test_only_finished_runs_count_as_finished(runs):
    runs.run("a", (0.5,), seed=0, start=of_sweep("A"))
    runs.run("b", (0.5,), seed=1, status="stopped", start=of_sweep("A"))
    assert list(by_trial(runs.results())["A"].finished) == [0]


def test_what_an_older_journal_lacks_of_its_tags_follows_from_its_settings(runs):
    view = runs.run("old", settings=["reward.feedback=on", "reward.alpha=1"], seed=3)
    assert "tags" not in view.start
    assert (view.tags, view.arm, view.seed) == ({"r2m.arm": "R2M, no BT", "r2m.seed": "3"}, "R2M, no BT", 3)


def test_tags_that_were_written_count(runs):
    view = runs.run("new", seed=3, start={"tags": {"r2m.arm": "as it was called then", "r2m.seed": "3"}})
    assert (view.arm, view.seed) == ("as it was called then", 3)


def test_a_seed_without_a_value_is_left_out(runs):
    runs.run("a", (0.25,), seed=0)
    runs.run("b", (math.nan,), seed=1)
    runs.run("c", seed=2)
    views = {r.view.seed: r.view for r in map(Result, runs.views)}
    assert values(views, lambda view: last(view, "eval/gold")) == {0: 0.25}


def test_a_pair_is_a_seed_that_both_have():
    found = paired({0: 1.0, 1: 2.0, 2: 9.0}, {1: 0.5, 0: 0.5, 7: 0.0})
    assert found is not None
    assert (found.estimate.mean, found.estimate.n, found.seeds) == (1.0, 2, (0, 1))
    assert found.estimate.finding == "too few seeds"
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_the_finding_is_of_a_against_b():
    a, b = dict.fromkeys(range(5), 1.0), dict.fromkeys(range(5), 0.5)
    assert [paired(*pair).estimate.finding for pair in ((a, b), (b, a), (a, a))] == [
        "better", "worse", "not distinguishable",
    ]  # fmt: skip


def test_a_mean_curve_has_the_steps_that_all_seeds_have():
    assert mean_curve([{1: 0.0, 2: 1.0, 3: 5.0}, {2: 3.0, 1: 1.0}]) == {1: 0.5, 2: pytest.approx(2.0)}
    assert mean_curve([]) == {}
