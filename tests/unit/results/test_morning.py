"""What an execution's journal says in the morning: what ran, what was found, who decided, what it cost."""

import json

import pytest
from made_morning import LAST_NIGHT, STEPS, execution, made_morning, step, trained_runs, verdict

from r2m.results.morning import morning
from r2m.runs.journal import read

PROMOTED = verdict("R2M is promoted.", True, [(True, "It is better.")])


def test_a_night_that_promotes_says_so_first(tmp_path):
    m = made_morning(tmp_path, *map(step, STEPS), PROMOTED)
    assert (m.pipeline, m.tick, m.status, m.promoted) == ("nightly", "20261201T0300Z", "finished", True)
    assert m.headline == ["R2M is promoted."]
    assert m.verdicts[0].conditions == ((True, "It is better."),)
    assert [s.name for s in m.in_state("done")] == list(STEPS)
    assert (m.steps[0].use, m.steps[0].seconds) == ("sft", 12.0)


def test_a_night_with_nothing_new_promotes_nothing_and_says_who_did(tmp_path):
    m = made_morning(tmp_path, *(step(name, "cached") for name in STEPS), PROMOTED)
    decided = f"As decided by {LAST_NIGHT}.champion: R2M is promoted."
    assert m.headline == ["Nothing has changed: all of its 7 steps are cached.", decided]
    assert not m.promoted
    assert m.steps[3].made_by == f"{LAST_NIGHT}.assessed"


def test_the_step_that_failed_comes_first_with_its_reason(tmp_path):
    events = [step("sft", "cached"), step("reward"), step("arms", "running", attempt=1),
              step("arms", "failed", attempt=1, reason="a node died", again_in_s=30.0),
              step("arms", "failed", attempt=2, reason="NaN loss"),
              *(step(name, "blocked", reason="it needs arms") for name in list(STEPS)[3:])]  # fmt: skip
    m = made_morning(tmp_path, *events, status="failed", reason="arms: NaN loss")
    assert m.headline == [
        "Failed: arms: NaN loss", "Not run, since they need what failed: assessed, alarm, compared, champion."
    ]  # fmt: skip
    assert (m.steps[2].attempts, m.promoted) == (2, False)


@pytest.mark.parametrize(("status", "said"), [("stopped", "Stopped"), ("running", "Running")])
def test_what_is_not_over_is_not_called_so(tmp_path, status, said):
    m = made_morning(tmp_path, step("sft"), step("reward", "running"), status=status)
    assert m.headline[0].startswith(f"{said}, not finished: reward, arms, ")
    assert m.steps[-1].state == "waiting"


def test_a_pipeline_that_promotes_nothing_is_finished_all_the_same(tmp_path):
    m = made_morning(tmp_path, step("sft"), step("reward", "cached"), steps={"sft": "sft", "reward": "reward-model"})
    assert m.headline == ["Finished: 1 step ran, 1 cached; nothing was to be promoted."]


def test_the_cost_is_of_the_runs_that_it_trained_itself(tmp_path):
    views, comparison = trained_runs(tmp_path)
    m = morning(execution(tmp_path, *map(step, STEPS)), views[:2], comparison)
    settings = views[0].start["config"]["algorithm"]
    assert m.trajectories == 2 * 8 * settings["queries"] * settings["responses"]
    assert m.worker_s == 2 * 8 * 3.0
    assert morning(execution(tmp_path / "b", *map(step, STEPS)), (), comparison).trajectories == 0


def test_time_between_sessions_is_not_counted(tmp_path):
    """It ran for 100 s, was killed, and went on for 40 s an hour later."""
    path = tmp_path / "pipelines" / "nightly-20261201T0300Z-0a1b2c" / "journal.jsonl"
    execution(tmp_path, step("sft"), {"name": "resume"}, step("reward"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, time in zip(lines, (0, 0, 100, 3700, 3720, 3740), strict=True):
        line["time"] = 1e9 + time
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert morning(read(path)).seconds == 140


def test_the_alarm_is_the_comparisons_or_else_the_runs_own(tmp_path):
    views, comparison = trained_runs(tmp_path, alarm=6)
    journal = execution(tmp_path, *map(step, STEPS))
    (said,) = morning(journal, (), comparison).alarm
    assert said.startswith("The alarm was raised in 1 of 10 runs, of R2M")
    assert morning(journal, views).alarm == (said,)
    assert morning(journal).alarm == ()


def test_the_last_verdict_of_a_step_counts(tmp_path):
    events = [*map(step, STEPS), verdict("No.", False), verdict("Yes.", True)]
    assert [v.text for v in made_morning(tmp_path, *events).verdicts] == ["Yes."]
