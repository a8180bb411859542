"""The ledger, with real studies and journals and no Ray: runs are the worker loop in this process, or their journals
are written by hand where the numbers matter. A driver that is killed is one that is not asked again.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from r2m.runs.folder import CHECKPOINTS, STOP_FILE
from r2m.runs.journal import Journal, read
from r2m.sweeps.ledger import ENDED, Job, Ledger
from r2m.sweeps.spec import baseline_point
from r2m.sweeps.sweep import Opened, new_sweep, write_answer
from r2m.training.loop import run_loop
from r2m.training.start import StartedRun

MakeSweep = Callable[..., Opened]
SweepFile = Callable[..., str]

ALPHA = {"reward.alpha": {"uniform": [0, 1]}}
ONE = {"parameters": ALPHA, "baselines": {}, "confirm": [10]}  # a search, and no arm to compare it with
LONG = {  # 12 rounds with 6 evaluations; Ω >= 0.5 acts from round 6 on, which is evaluation 3
    "parameters": {"reward.omega_min": {"uniform": [0.5, 0.6]}},
    "early_stopping": {"kind": "median", "startup_trials": 1},
    "budget": {"trials": 4, "evaluations": 6},
    "confirm": [10],
}


def ledger_of(opened: Opened, remaining_s: Callable[[], float] = lambda: math.inf) -> Ledger:
    """As a driver has it: every call is another session on the same study and journals."""
    assert opened.base.policy.model is not None
    assert opened.base.reward.model is not None
    return Ledger(
        opened.sweep,
        opened.name,
        opened.storage,
        opened.study(),
        (opened.base.policy.model, opened.base.reward.model),
        opened.experiment,
        opened.extra,
        remaining_s,
    )


def work(task: Job) -> None:
    """The task's runs, as a Tune process has them."""
    for run in task.runs:
        if read(run.journal).status not in ENDED:
            run_loop(run.config, run.folder, run.models)
        if read(run.journal).status != "finished":
            return


def go_on(ledger: Ledger, most: int = 100) -> list[tuple[str, str, list[int]]]:
    """Work at up to `most` tasks, one after another, until there are none: role, arm and seeds of each."""
    done = []
    while len(done) < most and (task := ledger.next()):
        work(task)
        ledger.settle(task, None)
        done.append((task.role, task.arm, [run.config.run.seed for run in task.runs]))
    return done


def write(
    run: StartedRun, *golds: float, event: str | None = None, reason: str | None = None, **metrics: Sequence[float]
) -> None:  # fmt: skip
    """The run's journal by hand: an evaluation at every eval_every-th round, and how it ended."""
    every = run.config.run.eval_every
    with Journal(run.journal) as journal:
        for i, gold in enumerate(golds):
            more = {f"eval/{name}": values[i] for name, values in metrics.items()}
            journal.round((i + 1) * every, {"eval/gold": gold} | more)
        if event is not None:
            reason = reason or ("round 3: loss is nan" if event == "failed" else None)
            journal.event(event, **({"reason": reason} if reason else {}))


def trials(opened: Opened) -> list[FrozenTrial]:
    return opened.study().get_trials()


def states(opened: Opened) -> list[str]:
    return [trial.state.name for trial in trials(opened)]


def stop_text(run: StartedRun) -> str | None:
    file = run.folder / STOP_FILE
    return file.read_text() if file.exists() else None


def interrupted(task: Job) -> None:
    """One round of the task's first run, and a checkpoint."""
    stop = task.runs[0].folder / STOP_FILE
    stop.touch()
    work(task)
    stop.unlink()


def wanted(ledger: Ledger) -> Job:
    task = ledger.next()
    assert task is not None
    return task


class TestOrder:
    def test_without_a_search_the_baselines_on_their_seeds(self, make_sweep: MakeSweep) -> None:
        arms = {"RLOO": {"reward.feedback": False}, "R2M": {"reward.feedback": True}}
        alone = {"parameters": {}, "budget": {"trials": 0}, "confirm": [], "seeds": [0, 1], "baselines": arms}
        opened = make_sweep(**alone)
        ledger = ledger_of(opened)
        assert sorted(go_on(ledger)) == [("baseline", "r2m", [0, 1]), ("baseline", "rloo", [0, 1])]
        assert ledger.done
        assert trials(opened) == []
        known, _ = write_answer(opened)
        assert known.winner is None
        assert known.verdict == (
            "No search: 2 of 2 arms are complete, on 2 seeds each; r2m compare tiny compares them.",
        )

    def test_baselines_then_trials_then_confirmation(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(baselines={"RLOO": {"reward.feedback": False}, "half": {"reward.omega_min": 0.5}})
        ledger = ledger_of(opened)
        done = go_on(ledger)
        assert done[:4] == [("baseline", "rloo", [0]), *(("search", f"t00{n}", [0]) for n in range(3))]
        best = max(trials(opened), key=lambda trial: trial.values[0])
        arms = ["rloo", *sorted({"t000", f"t{best.number:03d}"})]
        assert done[4:] == [("confirm", arm, [seed]) for arm in arms for seed in (10, 11)]
        assert ledger.done
        assert ledger.next() is None

    def test_trials_do_not_wait_for_one_another_but_the_confirmation_for_them_all(
        self, make_sweep: MakeSweep
    ) -> None:
        ledger = ledger_of(make_sweep(**ONE, budget={"trials": 2, "evaluations": 2}))
        first, second = wanted(ledger), wanted(ledger)
        for task, gold in ((first, 0.1), (second, 0.2)):
            assert ledger.next() is None
            assert not ledger.done
            write(task.runs[0], gold, gold, event="finished")
            ledger.settle(task, None)
        confirm = wanted(ledger)
        assert (confirm.role, confirm.arm) == ("confirm", "t001")
        assert confirm.params == second.params
        assert [run.config.run.seed for run in confirm.runs] == [10]

    def test_a_baseline_inside_the_space_is_a_trial_and_one_outside_a_run(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(baselines={"RLOO": {"reward.feedback": False}, "half": {"reward.omega_min": 0.5}})
        outside, inside, other = (wanted(ledger) for ledger in [ledger_of(opened)] for _ in range(3))
        assert (outside.arm, outside.trial, outside.params) == ("rloo", None, {"reward.feedback": False})
        assert (inside.arm, inside.label) == ("t000", "half")
        assert inside.params == baseline_point(opened.sweep, "half")
        assert (other.arm, other.label) == ("t001", "trial 1")
        starts = [read(task.runs[0].journal).start for task in (outside, inside, other)]
        assert {start["parent"] for start in starts} == {"tiny"}
        assert {start["experiment"] for start in starts} == {"r2m/sweeps/tiny"}
        assert [start["tags"]["r2m.trial"] for start in starts] == ["RLOO", "half", "trial 1"]

    def test_points_are_enqueued_once(self, make_sweep: MakeSweep) -> None:
        """The baseline's among them is the baseline's own trial; a second session on the study adds none."""
        point = {"reward.alpha": 0.25}
        opened = make_sweep(
            parameters=ALPHA, baselines={"R2M default": {"reward.alpha": 0.5}}, enqueue=[{"reward.alpha": 0.5}, point]
        )
        for _ in range(2):
            ledger_of(opened)
            assert [t.system_attrs["fixed_params"] for t in trials(opened)] == [{"reward.alpha": 0.5}, point]
        ledger = ledger_of(opened)
        assert [wanted(ledger).params for _ in range(2)] == [{"reward.alpha": 0.5}, point]
        ledger_of(opened)
        assert states(opened) == ["RUNNING", "RUNNING"]
        assert [t.user_attrs.get("baseline") for t in trials(opened)] == ["R2M default", None]

    def test_hours_used_up(self, make_sweep: MakeSweep) -> None:
        """No new trial, while those that were begun and the confirmation go on."""
        opened = make_sweep(**ONE)
        begun = wanted(ledger_of(opened))
        ledger = ledger_of(opened, lambda: 0.0)
        assert go_on(ledger) == [("search", begun.arm, [0]), ("confirm", begun.arm, [10])]
        assert ledger.done
        assert states(opened) == ["COMPLETE"]

    @pytest.mark.parametrize("used_up", [True, False])
    def test_every_baseline_runs(self, make_sweep: MakeSweep, used_up: bool) -> None:
        """Also with no hour left, or with fewer trials than there are baselines inside the space."""
        opened = make_sweep(
            parameters=ALPHA,
            baselines={"a": {"reward.alpha": 0.1}, "b": {"reward.alpha": 0.9}},
            budget={"trials": 1, "evaluations": 2},
            confirm=[10],
        )
        done = go_on(ledger_of(opened, lambda: 0.0 if used_up else math.inf))
        assert done == [(role, arm, [seed]) for role, seed in (("search", 0), ("confirm", 10))
                        for arm in ("t000", "t001")]  # fmt: skip
        assert [trial.user_attrs["baseline"] for trial in trials(opened)] == ["a", "b"]


class TestResumed:
    def test_a_running_trial_goes_on_from_its_checkpoint(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**ONE, budget={"trials": 1, "evaluations": 2})
        killed = wanted(ledger_of(opened))
        interrupted(killed)
        (killed.runs[0].folder / STOP_FILE).touch()  # as of a Ctrl-C just before
        before = killed.runs[0].journal.read_bytes()

        ledger = ledger_of(opened)
        task = wanted(ledger)
        assert (task.arm, task.params, task.runs) == (killed.arm, killed.params, killed.runs)
        assert stop_text(task.runs[0]) is None
        work(task)
        ledger.settle(task, None)
        assert task.runs[0].journal.read_bytes().startswith(before)
        view = read(task.runs[0].journal)
        assert [e["step"] for e in view.events if e["name"] == "resume"] == [1]
        assert list(view.rounds) == [1, 2, 3, 4]
        (trial,) = trials(opened)
        assert (trial.state, trial.value) == (TrialState.COMPLETE, view.rounds[4]["eval/gold"])

    @pytest.mark.parametrize("kind", ["random", "tpe", "nsga2"])
    def test_a_driver_killed_before_the_trial_had_its_parameters(self, make_sweep: MakeSweep, kind: str) -> None:
        sweeps = [make_sweep(name=n, sampler={"kind": kind, "seed": 3}, **ONE) for n in ("whole", "killed")]
        expected = wanted(ledger_of(sweeps[0])).params
        sweeps[1].study().ask()
        ledger = ledger_of(sweeps[1])
        task = wanted(ledger)
        assert (task.arm, task.params) == ("t000", expected)
        assert wanted(ledger).arm == "t001"

    @pytest.mark.parametrize("kind", ["random", "tpe", "nsga2"])
    def test_what_is_suggested_does_not_depend_on_restarts(self, make_sweep: MakeSweep, kind: str) -> None:
        suggested = []
        for name, restarts in (("whole", False), ("restarted", True)):
            opened = make_sweep(
                name=name, sampler={"kind": kind, "seed": 3}, baselines={}, budget={"trials": 4}, confirm=[10]
            )
            ledger = ledger_of(opened)
            params = []
            for n in range(4):
                ledger = ledger_of(opened) if restarts else ledger
                task = wanted(ledger)
                params.append(task.params)
                write(task.runs[0], 0.1 * n, event="finished")
                ledger.settle(task, None)
            suggested.append(params)
        assert suggested[0] == suggested[1]
        assert len({params["reward.alpha"] for params in suggested[0]}) == 4

    def test_what_has_ended_is_never_run_again(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**(ONE | {"baselines": {"RLOO": {"reward.feedback": False}}}))
        done = go_on(ledger_of(opened), most=3) + go_on(ledger_of(opened))
        assert [role for role, _, _ in done] == ["baseline", *["search"] * 3, "confirm", "confirm"]
        journals = {path: path.read_bytes() for path in Path(opened.storage).glob("runs/*/journal.jsonl")}
        assert len(journals) == 6
        again = ledger_of(opened)
        assert again.next() is None
        assert again.done
        assert {path: path.read_bytes() for path in journals} == journals

    @pytest.mark.parametrize(("event", "state"), [("finished", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL")])
    def test_killed_between_a_runs_end_and_the_study(self, make_sweep: MakeSweep, event: str, state: str) -> None:
        opened = make_sweep(**ONE, budget={"trials": 1, "evaluations": 2})
        write(wanted(ledger_of(opened)).runs[0], 0.1, 0.2, event=event)
        ledger = ledger_of(opened)
        task = wanted(ledger)
        before = task.runs[0].journal.read_bytes()
        work(task)
        ledger.settle(task, None)
        assert task.runs[0].journal.read_bytes() == before
        assert states(opened) == [state]

    def test_a_folder_without_a_start_is_made_again(self, make_sweep: MakeSweep) -> None:
        """A driver may be killed while it makes a run's folder: of a baseline, a trial or the confirmation."""
        opened = make_sweep(**(ONE | {"baselines": {"RLOO": {"reward.feedback": False}}}),
                            budget={"trials": 1, "evaluations": 2})  # fmt: skip
        names = ["rloo-s0", "t000-s0", "rloo-s10", "t000-s10"]
        for name in names:
            folder = Path(opened.storage) / "runs" / f"tiny-{name}"
            folder.mkdir(parents=True)
            (folder / "journal.jsonl").write_text('{"time": 1.0, "kind": "st')  # torn
            (folder / "left").touch()
        assert [f"{arm}-s{seed}" for _, arm, (seed,) in go_on(ledger_of(opened))] == names
        for name in names:
            folder = Path(opened.storage) / "runs" / f"tiny-{name}"
            assert read(folder / "journal.jsonl").status == "finished"
            assert not (folder / "left").exists()


class TestSettled:
    def test_finished_is_the_mean_over_the_seeds(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(
            **ONE, seeds=[0, 1], constraints=[{"metric": "eval/kl_sequence", "max": 20},
                                              {"metric": "eval/response_tokens", "min": 4}],
        )  # fmt: skip
        ledger = ledger_of(opened)
        task = wanted(ledger)
        first, second = task.runs
        write(first, 0.9, 0.25, event="finished", kl_sequence=[1, 18], response_tokens=[1, 7])
        write(second, 0.9, 0.75, event="finished", kl_sequence=[1, 26], response_tokens=[1, 6])
        ledger.settle(task, None)
        (trial,) = trials(opened)
        assert (trial.state, trial.values) == (TrialState.COMPLETE, [0.5])
        assert trial.constraints == {"eval/kl_sequence": 2.0, "eval/response_tokens": -2.5}
        assert trial.user_attrs["runs"] == ["tiny-t000-s0", "tiny-t000-s1"]
        assert task.runs[0].name not in ledger.active

    def test_several_objectives(self, make_sweep: MakeSweep) -> None:
        objectives = [{"metric": "eval/gold"}, {"metric": "eval/kl_sequence", "direction": "minimize"}]
        opened = make_sweep(**ONE, objectives=objectives)
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.1, 0.2, event="finished", kl_sequence=[3, 4])
        ledger.observe(task)
        ledger.settle(task, None)
        assert trials(opened)[0].values == [0.2, 4.0]

    @pytest.mark.parametrize("gold", [math.nan, math.inf])
    def test_no_finite_value_is_a_failure(self, make_sweep: MakeSweep, gold: float) -> None:
        opened = make_sweep(**ONE)
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.1, gold, event="finished")
        ledger.settle(task, None)
        (trial,) = trials(opened)
        assert (trial.state, trial.values) == (TrialState.FAIL, None)
        assert trial.user_attrs["reason"] == f"the objective is [{gold}]"

    def test_a_diverged_run_gives_its_reason(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**ONE, seeds=[0, 1])
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.1, event="failed")
        ledger.settle(task, None)
        (trial,) = trials(opened)
        assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "round 3: loss is nan")
        other = read(task.runs[1].journal)  # is never begun
        assert (other.status, other.events[-1]["reason"]) == ("failed", "the trial's other seed has failed")
        assert wanted(ledger).arm == "t001"

    def test_one_that_an_alarm_has_stopped_is_pruned_with_the_reason(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**ONE, seeds=[0, 1])
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.5, 0.25, event="pruned", reason="alarm in round 4: judged lower")
        ledger.settle(task, None)
        (trial,) = trials(opened)
        assert (trial.state, trial.user_attrs["reason"]) == (TrialState.PRUNED, "alarm in round 4: judged lower")
        other = read(task.runs[1].journal)
        assert (other.status, other.events[-1]["reason"]) == ("pruned", "the trial's other seed has pruned")
        assert wanted(ledger).arm == "t001"

    def test_pruned_keeps_its_evaluations(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep("algorithm.rounds=12", **LONG, baselines={})
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.5, 0.25, 0.125, event="pruned")
        ledger.settle(task, None)
        (trial,) = trials(opened)
        assert trial.state == TrialState.PRUNED
        assert trial.intermediate_values == {1: 0.5, 2: 0.25, 3: 0.125}
        assert trial.value == 0.125  # the last evaluation's

    def test_a_stopped_trial_stays_running(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**ONE)
        ledger = ledger_of(opened)
        task = wanted(ledger)
        ledger.stop()
        work(task)
        ledger.settle(task, None)
        assert read(task.runs[0].journal).status == "stopped"
        assert states(opened) == ["RUNNING"]
        assert ledger.done
        again = wanted(ledger_of(opened))
        assert (again.arm, again.params) == (task.arm, task.params)
        assert (again.runs[0].folder / CHECKPOINTS).is_dir()

    def test_an_error_ends_it(self, make_sweep: MakeSweep) -> None:
        """A process that died too often: journals of it say so, since nobody else will."""
        opened = make_sweep(**ONE, seeds=[0, 1])
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.1, 0.2, event="finished")
        write(task.runs[1], 0.1)
        ledger.settle(task, "the actor died")
        views = [read(run.journal) for run in task.runs]
        assert [view.status for view in views] == ["finished", "failed"]
        assert views[1].events[-1]["reason"] == "the actor died"
        (trial,) = trials(opened)
        assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "the actor died")

    def test_an_error_after_the_end_changes_nothing(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**ONE)
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.1, 0.2, event="finished")
        before = task.runs[0].journal.read_bytes()
        ledger.settle(task, "the actor died")
        assert trials(opened)[0].value == 0.2
        assert task.runs[0].journal.read_bytes() == before

    def test_a_failed_baseline_or_confirmation_is_not_tried_again(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**(ONE | {"baselines": {"RLOO": {"reward.feedback": False}}}),
                            budget={"trials": 1, "evaluations": 2})  # fmt: skip
        ledger = ledger_of(opened)
        arms = []
        while task := ledger.next():
            arms.append((task.role, task.arm))
            if task.role == "search":
                work(task)
            ledger.settle(task, None if task.role == "search" else "the actor died")
        assert arms == [("baseline", "rloo"), ("search", "t000"), ("confirm", "rloo"), ("confirm", "t000")]
        assert ledger_of(opened).done

    def test_models_are_kept_of_the_confirmation_alone(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**ONE, budget={"trials": 1, "evaluations": 2})
        assert len(go_on(ledger_of(opened))) == 2
        search, confirm = (Path(opened.storage) / "runs" / f"tiny-t000-s{seed}" for seed in (0, 10))
        models = {CHECKPOINTS, "policy", "reward"}
        assert {path.name for path in search.iterdir()} == {"config.yaml", "journal.jsonl"}
        assert {path.name for path in confirm.iterdir()} == {
            "config.yaml",
            "journal.jsonl",
            "best_judged.json",
        } | models


class TestPruned:
    """The median of the first trial's 1.0 is what the others are held against."""

    @pytest.fixture
    def start(self, make_sweep: MakeSweep) -> Callable[..., tuple[Opened, Ledger]]:
        def make(**sections: Any) -> tuple[Opened, Ledger]:
            opened = make_sweep("algorithm.rounds=12", **(LONG | {"baselines": {}} | sections))
            ledger = ledger_of(opened)
            first = wanted(ledger)
            for run in first.runs:
                write(run, *[1.0] * 6, event="finished")
            ledger.settle(first, None)
            return opened, ledger

        return make

    def test_not_before_omega_has_acted(self, start: Callable[..., tuple[Opened, Ledger]]) -> None:
        _, ledger = start()
        assert ledger.grace == 3
        task = wanted(ledger)
        told = []
        for i in range(4):
            with Journal(task.runs[0].journal) as journal:
                journal.round(2 * i + 1, {"reward/proxy": 0.0})  # a round without an evaluation
                journal.round(2 * i + 2, {"eval/gold": 0.0})
            assert len(ledger.observe(task)) == 2 + (i == 0)  # the start
            told.append(stop_text(task.runs[0]))
        assert told == [None, None, "pruned", "pruned"]

    def test_the_loop_then_ends_for_good(self, start: Callable[..., tuple[Opened, Ledger]]) -> None:
        opened, ledger = start()
        task = wanted(ledger)
        write(task.runs[0], *[0.0] * 3)
        ledger.observe(task)
        work(task)
        ledger.settle(task, None)
        assert read(task.runs[0].journal).status == "pruned"
        assert states(opened) == ["COMPLETE", "PRUNED"]

    def test_a_good_one_goes_on(self, start: Callable[..., tuple[Opened, Ledger]]) -> None:
        _, ledger = start()
        task = wanted(ledger)
        write(task.runs[0], *[2.0] * 5)
        ledger.observe(task)
        assert stop_text(task.runs[0]) is None

    def test_nothing_is_left_to_stop_after_the_last(self, start: Callable[..., tuple[Opened, Ledger]]) -> None:
        opened, ledger = start()
        task = wanted(ledger)
        write(task.runs[0], *[0.0] * 6, event="finished")
        ledger.settle(task, None)
        assert stop_text(task.runs[0]) is None
        assert states(opened) == ["COMPLETE", "COMPLETE"]

    def test_the_first_seed_decides(self, start: Callable[..., tuple[Opened, Ledger]]) -> None:
        opened, ledger = start(seeds=[0, 1])
        task = wanted(ledger)
        write(task.runs[0], *[2.0] * 6, event="finished")
        write(task.runs[1], *[0.0] * 4)
        ledger.observe(task)
        assert [stop_text(run) for run in task.runs] == [None, None]
        assert trials(opened)[1].intermediate_values == {k: 2.0 for k in range(1, 7)}
        poor = wanted(ledger)
        write(poor.runs[0], *[0.0] * 4)
        ledger.observe(poor)
        assert [stop_text(run) for run in poor.runs] == ["pruned", None]
        work(poor)
        ledger.settle(poor, None)
        assert [read(run.journal).status for run in poor.runs] == ["pruned", "pruned"]
        assert list(read(poor.runs[1].journal).rounds) == []

    def test_a_baseline_never(self, start: Callable[..., tuple[Opened, Ledger]]) -> None:
        _, ledger = start(baselines={"a": {"reward.omega_min": 0.5}, "b": {"reward.omega_min": 0.55}})
        bad, trial = wanted(ledger), wanted(ledger)
        assert (bad.label, trial.label) == ("b", "trial 2")
        for task in (bad, trial):
            write(task.runs[0], *[0.0] * 5)
            ledger.observe(task)
        assert [stop_text(task.runs[0]) for task in (bad, trial)] == [None, "pruned"]

    @pytest.mark.filterwarnings("error:The reported value is ignored")  # Optuna's, of a step that it has been told
    def test_replayed_rounds_are_told_once(self, start: Callable[..., tuple[Opened, Ledger]]) -> None:
        """Those of a resumed run, and all of the journal in another session."""
        opened, ledger = start()
        task = wanted(ledger)
        write(task.runs[0], 5.0, 6.0)
        ledger.observe(task)
        with Journal(task.runs[0].journal) as journal:
            journal.event("resume", step=2)
            journal.round(4, {"eval/gold": 0.0})
            journal.round(6, {"eval/gold": 7.0})
        ledger.observe(task)
        assert trials(opened)[1].intermediate_values == {1: 5.0, 2: 6.0, 3: 7.0}
        ledger = ledger_of(opened)
        task = wanted(ledger)
        write(task.runs[0], 0.0)
        ledger.observe(task)
        assert trials(opened)[1].intermediate_values == {1: 5.0, 2: 6.0, 3: 7.0}
        assert stop_text(task.runs[0]) is None


class TestStopping:
    def test_every_run_is_asked_and_none_is_begun(self, make_sweep: MakeSweep) -> None:
        ledger = ledger_of(make_sweep(parameters=ALPHA, seeds=[0, 1]))
        tasks = [wanted(ledger) for _ in range(3)]
        (tasks[2].runs[0].folder / STOP_FILE).write_text("pruned")
        ledger.stop()
        assert [[stop_text(run) for run in task.runs] for task in tasks] == [["", ""], ["", ""], ["pruned", ""]]
        assert ledger.next() is None
        assert not ledger.done  # these three have yet to end
        for task in tasks:
            work(task)
            ledger.settle(task, None)
        assert ledger.done
        assert [read(task.runs[0].journal).status for task in tasks] == ["stopped", "stopped", "pruned"]


REFUSED = "reward.alpha = 0.5 needs algorithm.responses >= 3"


class TestRefused:
    """A Python file's suggest may ask for what no run can have: K = 2 with α > 0."""

    @pytest.fixture
    def opened(self, sweep_file: SweepFile, tmp_path: Path) -> Opened:
        tree = yaml.safe_load(Path(sweep_file(confirm=[10], baselines={}, enqueue=[{"K": 2}])).read_text())
        del tree["parameters"]
        path = tmp_path / "tiny.py"
        path.write_text(
            f"SWEEP = {tree!r}\n\n\n"
            "def suggest(trial):\n"
            "    return {'algorithm.responses': trial.suggest_int('K', 2, 4)}\n"
        )
        return new_sweep(str(path), "tiny", str(tmp_path / "storage"))

    def expect_failed_and_gone_on(self, opened: Opened, ledger: Ledger) -> None:
        task = wanted(ledger)
        first, *others = trials(opened)
        assert (first.state, first.params) == (TrialState.FAIL, {"K": 2})
        assert REFUSED in first.user_attrs["reason"]
        assert "runs" not in first.user_attrs
        assert not (Path(opened.storage) / "runs" / "tiny-t000-s0").exists()
        assert task.arm == f"t{others[-1].number:03d}"
        assert task.runs[0].config.algorithm.responses == others[-1].params["K"] > 2

    def test_it_fails_and_the_next_goes_on(self, opened: Opened) -> None:
        self.expect_failed_and_gone_on(opened, ledger_of(opened))

    def test_also_where_the_driver_was_killed_before_it_said_so(self, opened: Opened) -> None:
        ledger = ledger_of(opened)
        opened.study().ask().suggest_int("K", 2, 4)
        self.expect_failed_and_gone_on(opened, ledger)
