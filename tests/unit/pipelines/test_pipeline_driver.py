"""The steps of an execution, each in a process of its own: what is run, again, at the same time, or not at all."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from r2m.errors import UserError
from r2m.pipelines.driver import run_execution
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import Journal, read
from tests.made_steps import Night


def chain(night: Night, **first: object) -> dict[str, object]:
    """a, then b of its file, then c of b's."""
    return {
        "a": night.step(text="a", **first),
        "b": night.step(text="b", reads=["${a.file}"]),
        "c": night.step(text="c", reads=["${b.file}"]),
    }


def failure(night: Night) -> str:
    """Why it failed; what is shipped is written down after that."""
    (event,) = [e for e in night.view.events if e["name"] == "failed"]
    return str(event["reason"])


def test_steps_run_in_their_order_and_once(night: Night) -> None:
    assert night.run(chain(night)) == "finished"
    assert night.log == ["begin a", "end a", "begin b", "end b", "begin c", "end c"]
    made = {e["step"]: e["entry"] for e in night.view.events if e.get("state") == "done"}
    assert (night.storage / "memo" / made["c"] / "made.txt").read_text() == "cba"
    night.ran()
    assert night.run(chain(night)) == "finished"
    assert night.run(chain(night), "2026-12-02T03:00Z") == "finished"
    assert night.ran() == []
    assert [night.states(step) for step in "abc"] == [["cached"]] * 3
    by = {e["step"]: e["made_by"] for e in night.view.events if e["name"] == "step"}
    assert by["b"].startswith("night-20261201T0300Z-")
    assert by["b"].endswith(".b")


def test_what_changed_runs_with_what_depends_on_it(night: Night) -> None:
    night.run(chain(night))
    night.ran()
    changed = chain(night)
    changed["b"] = night.step(text="B", reads=["${a.file}"])
    assert night.run(changed, "2026-12-02T03:00Z") == "finished"
    assert night.ran() == ["b", "c"]


def test_a_result_that_comes_out_the_same_sets_nothing_off(night: Night) -> None:
    night.run(chain(night))
    night.ran()
    same = chain(night)
    same["b"] = night.step(text="", reads=[str(night.folder / "b"), "${a.file}"])
    (night.folder / "b").write_text("b")
    assert night.run(same, "2026-12-02T03:00Z") == "finished"
    assert night.ran() == ["b"]


def test_force_runs_what_is_there_into_a_folder_of_its_own(night: Night) -> None:
    night.run(chain(night))
    night.ran()
    assert night.run(chain(night), force=["b"]) == "finished"
    assert night.ran() == ["b"]
    forced = [e["entry"] for e in night.view.events if e.get("step") == "b" and "entry" in e]
    assert forced[1] == f"{forced[0]}-2"
    with pytest.raises(UserError, match=r"--force 'd': a, b, c are allowed"):
        night.run(chain(night), force=["d"])


def test_only_some_steps_and_what_they_need(night: Night) -> None:
    assert night.run(chain(night), only=["b"]) == "finished"
    assert night.ran() == ["a", "b"]


def test_the_rest_runs_after_only_some_steps_have(night: Night) -> None:
    night.run(chain(night), only=["a"])
    night.ran()
    assert night.run(chain(night)) == "finished"
    assert night.ran() == ["b", "c"]


def test_a_failure_is_tried_again_after_a_wait_that_doubles(night: Night) -> None:
    steps = chain(night, fails=2)
    assert night.run(steps, tree={"backoff_s": 0.25}) == "finished"
    assert night.ran() == ["a", "a", "a", "b", "c"]
    failed = [e for e in night.view.events if e.get("state") == "failed"]
    assert [(e["attempt"], e["again_in_s"], e["reason"]) for e in failed] == [
        (1, 0.25, "RuntimeError: attempt 1 of a"), (2, 0.5, "RuntimeError: attempt 2 of a")
    ]  # fmt: skip
    begun = [e["time"] for e in night.view.events if e.get("step") == "a" and e["state"] == "running"]
    for event, again in zip(failed, begun[1:], strict=True):
        assert again - event["time"] >= event["again_in_s"] * 0.99
    assert read(night.execution.step_folder("a") / JOURNAL).status == "finished"


@pytest.mark.parametrize("how", ["error", "kill"])
def test_retries_end_and_others_go_on(night: Night, how: str) -> None:
    steps = chain(night, fails=9, how=how, retries=1) | {"d": night.step(text="d")}
    assert night.run(steps) == "failed"
    assert sorted(night.ran()) == ["a", "a", "d"]
    assert [night.states(step)[-1] for step in "abcd"] == ["failed", "blocked", "blocked", "done"]
    said = {"error": "a: RuntimeError: attempt 2 of a", "kill": "a: its process ended: killed by signal 9"}[how]
    assert failure(night).startswith(said)


def test_a_failure_by_input_is_not_tried_again(night: Night) -> None:
    assert night.run(chain(night, fails=1, how="input")) == "failed"
    assert night.ran() == ["a"]
    assert failure(night) == "a: text = 'x': wrong"
    assert night.run(chain(night, fails=0, how="input")) == "finished"


def test_a_result_that_is_nothing_for_the_next_step_fails_that_step(night: Night) -> None:
    """evaluate takes at least one run."""
    steps = {"a": night.step(names=[]), "b": {"use": "evaluate", "runs": "${a.names}"}, "c": night.step(text="c")}
    assert night.run(steps) == "failed"
    assert sorted(night.ran()) == ["a", "c"]
    assert failure(night).startswith("b: steps.b: runs = []")


@pytest.fixture
def gate(night: Night) -> Path:
    return night.folder / "gate"


def opened_when(gate: Path, night: Night, begun: int) -> threading.Thread:
    """Opens the gate once so many steps are at it at the same time, or never."""

    def wait() -> None:
        while len([line for line in night.log if line.startswith("begin")]) < begun:
            time.sleep(0.01)
        gate.touch()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_steps_that_need_not_wait_run_side_by_side(night: Night, gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    steps = {name: night.step(text=name, waits=str(gate)) for name in "abc"}
    opened_when(gate, night, 2)
    assert night.run(steps) == "finished"
    assert [line.split()[0] for line in night.log[:2]] == ["begin", "begin"]
    assert night.log.index("begin c") > 2  # after one of them has ended


def test_what_takes_the_whole_machine_runs_alone(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    steps = {"a": night.step(text="a"), "w": night.step(text="w") | {"use": "whole"}, "c": night.step(text="c")}
    assert night.run(steps) == "finished"
    at = night.log.index("begin w")
    assert night.log[at + 1] == "end w"
    assert {line.split()[0] for line in night.log[:at]} <= {"begin", "end"}
    assert night.log[:at].count("begin a") == night.log[:at].count("end a")


def interrupted(night: Night) -> threading.Thread:
    """This process, by Ctrl-C, once a step has begun."""

    def wait() -> None:
        while not night.log:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_stops_the_steps_and_the_next_call_goes_on(night: Night, gate: Path) -> None:
    thread = interrupted(night)
    assert night.run(chain(night, waits=str(gate))) == "stopped"
    thread.join()
    assert night.ran() == ["a"]
    assert night.states("a") == ["running", "stopped"]
    assert night.view.status == "stopped"
    gate.touch()
    assert night.run(chain(night, waits=str(gate))) == "finished"
    assert night.ran() == ["a", "b", "c"]


def test_what_was_forced_before_a_stop_is_not_made_again(night: Night, gate: Path) -> None:
    """By the same command; without a stop in between it is."""
    steps = chain(night) | {"d": night.step(text="d", reads=["${c.file}"], waits=str(gate))}
    gate.touch()
    night.run(steps)
    gate.unlink()
    for _ in range(2):
        night.ran()
        thread = threading.Thread(target=stop_at, args=(night, "begin d"), daemon=True)
        thread.start()
        assert night.run(steps, force=["b", "d"]) == "stopped"
        thread.join()
        assert night.ran() == ["b", "d"]
        gate.touch()
        assert night.run(steps, force=["b", "d"]) == "finished"
        assert night.ran() == ["d"]
        gate.unlink()


def stop_at(night: Night, line: str) -> None:
    while line not in night.log:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_who_has_lost_the_pipeline_stops(night: Night, gate: Path) -> None:
    assert night.run(chain(night, waits=str(gate)), lost=lambda: bool(night.log)) == "stopped"
    assert "another process has taken this pipeline over" in night.said
    assert night.ran() == ["a"]


def test_one_process_is_at_an_execution(night: Night) -> None:
    execution = night.open(night.load(chain(night)))
    with Journal(execution.journal), pytest.raises(UserError, match="another process is writing this run"):
        run_execution(execution)


def test_without_a_tick_what_has_not_ended_well_is_taken_up(night: Night) -> None:
    steps = chain(night, fails=1, retries=0)
    assert night.run(steps, None) == "failed"
    first = night.execution.run_id
    assert night.run(steps, None) == "finished"
    assert night.execution.run_id == first
    time.sleep(1.1)  # its name has the second in which it began
    assert night.run(steps, None) == "finished"
    assert night.execution.run_id != first
