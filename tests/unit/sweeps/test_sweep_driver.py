"""The sweep's driver without Tune: its plan, what it writes down of a trial that has ended, Ctrl-C.

tests/integration has it run. No Ray is started here: only `connect`, which would, is left out.
"""

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from r2m.errors import UserError
from r2m.runs.folder import STOP_FILE
from r2m.runs.journal import Journal, read
from r2m.sweeps import driver
from r2m.sweeps.driver import _Session, run_sweep
from r2m.sweeps.ledger import Job
from r2m.sweeps.room import distinct, plan_of
from r2m.sweeps.spec import load_sweep
from r2m.sweeps.sweep import Opened
from r2m.training.driver import on_signal

MakeConfig = Callable[..., Any]
MakeSweep = Callable[..., Opened]
SweepFile = Callable[..., str]

ALPHA = {"parameters": {"reward.alpha": {"uniform": [0, 1]}}}

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="plans for this machine's GPU")


class TestPlan:
    @pytest.fixture(autouse=True)
    def a_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of eight CPUs and 64 GiB."""
        room = {"cpus": 8, "gpus": 0, "node_gib": 64.0}
        monkeypatch.setattr("r2m.sweeps.room._machine", lambda: dict(room))
        monkeypatch.setattr(os, "cpu_count", lambda: 8)

    @on_cpu
    def test_runs_of_all_three_parts(self, sweep_file: SweepFile) -> None:
        """(5 trials + 2 baselines) * 2 seeds + (1 winner + 2 baselines) * 3 confirmations."""
        sweep = load_sweep(sweep_file(budget={"trials": 5}, seeds=[0, 1], confirm=[2, 3, 4]))
        plan = plan_of(sweep, (), None)
        assert plan.runs == 7 * 2 + 3 * 3
        assert plan.trajectories == 23 * 64
        assert (plan.concurrent, plan.limit, plan.nested) == (8, "CPUs", False)

    @on_cpu
    def test_nested_trials_have_a_cpu_for_their_drivers(self, sweep_file: SweepFile) -> None:
        """Eight CPUs for four trials of two workers, and a ninth that the drivers wait on."""
        plan = plan_of(load_sweep(sweep_file(**ALPHA, budget={"trials": 5})), ("run.workers=2",), None)
        assert (plan.workers, plan.nested, plan.concurrent) == (2, True, 4)

    @on_cpu
    def test_an_engine_has_no_gpus_of_its_own(self, sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("r2m.sweeps.room.check_vllm", lambda: None)  # it is not here
        extra = ("rollout.engine=vllm", "rollout.gpus=1")
        with pytest.raises(UserError, match=r"^rollout.gpus = 1: in a sweep .*; 0 is allowed$"):
            plan_of(load_sweep(sweep_file(budget={"trials": 2})), extra, None)

    @on_cpu
    def test_an_engine_that_is_not_here_is_refused(self, sweep_file: SweepFile) -> None:
        with pytest.raises(UserError, match=r"^rollout.engine = 'vllm': vLLM is not installed"):
            plan_of(load_sweep(sweep_file(budget={"trials": 2})), ("rollout.engine=vllm",), None)

    @on_cpu
    def test_what_does_not_fit_is_refused(self, sweep_file: SweepFile) -> None:
        sweep = load_sweep(sweep_file(budget={"trials": 20, "concurrent": 9}))
        with pytest.raises(UserError, match=r"^budget.concurrent = 9: 8 trials fit at once: a trial takes 1 CPU"):
            plan_of(sweep, (), None)

    @on_cpu
    def test_a_python_file_is_planned_for_by_its_base(self, sweep_file: SweepFile, tmp_path: Path) -> None:
        tree = yaml.safe_load(Path(sweep_file(budget={"trials": 5})).read_text())
        del tree["parameters"]
        file = tmp_path / "space.py"
        file.write_text(f"SWEEP = {tree!r}\n\n\ndef suggest(trial):\n    raise AssertionError\n")
        assert plan_of(load_sweep(file), (), None).concurrent == 8

    def test_configurations_that_differ_in_what_takes_no_room(self, make_config: MakeConfig) -> None:
        dear = make_config("algorithm.responses=8", "algorithm.microbatch=16")
        assert distinct([make_config(), make_config("algorithm.lr=1", "reward.alpha=0.1"), dear]) == [
            make_config("algorithm.lr=1", "reward.alpha=0.1"),
            dear,
        ]


@pytest.fixture
def said() -> StringIO:
    return StringIO()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, said: StringIO) -> Iterator[Callable[[Opened], _Session]]:
    """Opens a sweep as run_sweep does, again as often as is asked."""
    monkeypatch.setattr(driver, "connect", lambda address, workers: None)
    journals: list[Journal] = []

    def make(opened: Opened) -> _Session:
        for journal in journals:
            journal.close()
        journals.append(Journal(opened.folder / "journal.jsonl"))
        return _Session(opened, journals[-1], None, Console(file=said))

    yield make
    for journal in journals:
        journal.close()


@pytest.fixture
def opened(make_sweep: MakeSweep) -> Opened:
    """Two trials of 64 trajectories each; MLflow is where nobody answers."""
    return make_sweep(
        tracking_uri="http://127.0.0.1:1", **ALPHA, budget={"trials": 2, "evaluations": 2}, baselines={}, confirm=[10]
    )


def rounds(task: Job, *golds: float, event: str | None = "finished") -> None:
    """The next rounds of the task's run: an hour each with its evaluation."""
    run = task.runs[0]
    with Journal(run.journal) as journal:
        for step, gold in enumerate(golds, len(read(run.journal).rounds) + 1):
            journal.round(
                step, {"eval/gold": gold, "eval/kl_sequence": 3.0, "time/round_s": 3000.0, "time/eval_s": 600.0}
            )
        if event is not None:
            journal.event(event, **({"reason": "diverged"} if event == "failed" else {}))


def settled(session: _Session, task: Job, *golds: float, event: str = "finished") -> str:
    rounds(task, *golds, event=event)
    session.ledger.settle(task, None)
    return session._end(task)


def recorded(opened: Opened) -> dict[int, dict[str, float]]:
    return read(opened.folder / "journal.jsonl").rounds


class TestWrittenDown:
    def test_a_trial_that_has_ended(self, session: Callable[[Opened], _Session], opened: Opened) -> None:
        s = session(opened)
        first, second = s.ledger.next(), s.ledger.next()
        assert first is not None
        assert second is not None
        line = settled(s, second, 0.25, 0.5)
        assert line.startswith("trial 1 (seed 0): finished, 0.500 at KL 3.0\n  again: r2m train ")
        assert f"--set reward.alpha={second.params['reward.alpha']!r}" in line
        settled(s, first, 0.75, 0.125)
        assert recorded(opened) == {
            1: {"sweep/trial": 1, "sweep/value": 0.5, "sweep/best": 0.5, "sweep/kl": 3, "sweep/worker_hours": 2},
            2: {"sweep/trial": 0, "sweep/value": 0.125, "sweep/best": 0.5, "sweep/kl": 3, "sweep/worker_hours": 4},
        }  # fmt: skip

    def test_one_that_failed(self, session: Callable[[Opened], _Session], opened: Opened) -> None:
        s = session(opened)
        task = s.ledger.next()
        assert task is not None
        assert settled(s, task, event="failed").startswith(
            "trial 0 (seed 0): failed, nan at KL nan; diverged\n  again: r2m train"
        )
        (metrics,) = recorded(opened).values()
        assert math.isnan(metrics["sweep/value"])
        assert math.isnan(metrics["sweep/best"])

    def test_confirmation_is_no_trial(self, session: Callable[[Opened], _Session], opened: Opened) -> None:
        s = session(opened)
        for gold in (0.5, 0.25):
            task = s.ledger.next()
            assert task is not None
            settled(s, task, gold)
        confirm = s.ledger.next()
        assert confirm is not None
        assert settled(s, confirm, 0.75).startswith("trial 0 (seed 10): finished, 0.750")
        assert len(recorded(opened)) == 2
        assert s.ledger.done

    def test_what_a_killed_driver_had_not(self, session: Callable[[Opened], _Session], opened: Opened) -> None:
        """A trial settled and not written down, and one that was running: its hours count once."""
        s = session(opened)
        first, second = s.ledger.next(), s.ledger.next()
        assert first is not None
        assert second is not None
        rounds(second, 0.25, event=None)
        rounds(first, 0.5)
        s.ledger.settle(first, None)
        assert recorded(opened) == {}

        s = session(opened)
        s._record()
        s._record()
        assert {k: m["sweep/trial"] for k, m in recorded(opened).items()} == {1: 0}
        again = s.ledger.next()
        assert again is not None
        assert again.runs == second.runs
        settled(s, again, 0.75)
        assert recorded(opened)[2] == {
            "sweep/trial": 1, "sweep/value": 0.75, "sweep/best": 0.75, "sweep/kl": 3, "sweep/worker_hours": 3,
        }  # fmt: skip
        session(opened)._record()
        assert len(recorded(opened)) == 2

    def test_hours_go_on_from_earlier_sessions(
        self, session: Callable[[Opened], _Session], make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half an hour of one is spent; a pause of a day is not."""
        opened = make_sweep(budget={"trials": 2, "evaluations": 2, "hours": 1})
        journal = opened.folder / "journal.jsonl"
        began = read(journal).start["time"]
        with open(journal, "a") as file:
            for time, name in ((began + 1800, "stopped"), (began + 88200, "resume")):
                file.write(json.dumps({"time": time, "kind": "event", "name": name}) + "\n")
        monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: 0.0))
        assert session(opened).ledger.remaining_s() == pytest.approx(1800)


def test_ctrl_c_stops_and_a_second_one_aborts(
    session: Callable[[Opened], _Session], opened: Opened, said: StringIO
) -> None:
    s = session(opened)
    task = s.ledger.next()
    assert task is not None
    before = signal.getsignal(signal.SIGINT)
    with on_signal(s._ask_to_stop):
        os.kill(os.getpid(), signal.SIGINT)
        assert (task.runs[0].folder / STOP_FILE).exists()
        assert s.ledger.next() is None
        assert said.getvalue().startswith("stopping after this round, with checkpoints")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_sweep_that_is_running_or_has_finished(opened: Opened) -> None:
    with Journal(opened.folder / "journal.jsonl") as journal:
        with pytest.raises(UserError, match="another process is writing this run"):
            run_sweep(opened)
        journal.event("finished")
    before = (opened.folder / "journal.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"^SWEEP = 'tiny': it has finished; there is nothing to resume$"):
        run_sweep(opened)
    assert (opened.folder / "journal.jsonl").read_bytes() == before
