"""What goes, and what stays: nothing that an execution that stays refers to, nothing that one that runs may need."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from r2m.pipelines import gc
from r2m.pipelines.execution import executions
from r2m.pipelines.gc import Garbage, find_garbage, remove_garbage
from r2m.pipelines.lease import Holder
from r2m.runs.journal import Journal
from tests.conftest import Command
from tests.made_executions import SFT, MadeExecutions

MOMENTS = 17
TRAIN, RUN, OTHER_RUN = "train-00000000000a", "run-00000000000b", "run-00000000000c"


@pytest.fixture
def made(tmp_path: Path) -> MadeExecutions:
    return MadeExecutions(tmp_path / "storage")


def found(made: MadeExecutions, keep: int, name: str | None = None) -> Garbage:
    return find_garbage(str(made.storage), keep, name)


def collect(made: MadeExecutions, keep: int, name: str | None = None) -> None:
    remove_garbage(str(made.storage), found(made, keep, name), keep, name)


def names(garbage: Garbage) -> list[str]:
    return sorted(path.name[:20] for path in garbage.executions)


def test_the_newest_of_each_pipeline_stay(made: MadeExecutions) -> None:
    for day in (1, 2, 3):
        made.execution(day, name="a")
        made.execution(day, name="b")
    assert [name[:10] for name in names(found(made, 2))] == ["a-20261201", "b-20261201"]
    assert [name[:10] for name in names(found(made, 1, "a"))] == ["a-20261201", "a-20261202"]
    collect(made, 1, "a")
    assert [kept.folder.name[:10] for kept in executions(str(made.storage))] == [
        "a-20261203", "b-20261201", "b-20261202", "b-20261203"
    ]  # fmt: skip
    assert [name[:10] for name in made.there("pipelines") if name.startswith("a-")] == ["a-20261203"] * 2  # and .s
    assert found(made, 3) == Garbage()


def test_results_that_an_execution_refers_to_stay(made: MadeExecutions) -> None:
    made.entry(SFT)
    made.entry(f"{SFT}-2")
    made.execution(1, SFT)
    made.execution(2, f"{SFT}-2")
    assert list(found(made, 1).entries) == [SFT]
    collect(made, 1)
    assert made.there("memo") == [f"{SFT}-2"]


def test_of_one_pipeline_only_its_own_results_go(made: MadeExecutions) -> None:
    made.entry(SFT, pipeline="a")
    made.entry(f"{SFT}-2", pipeline="b")
    made.execution(1, name="a")
    assert list(found(made, 1, "a").entries) == [SFT]
    assert list(found(made, 1).entries) == [SFT, f"{SFT}-2"]


def trained(made: MadeExecutions, used: float = 1000.0) -> None:
    """Two runs of one sweep, each an entry, and that of the step that names them."""
    made.sweep("night-s-00000000", "night-s-00000000-r2m-s0", "night-s-00000000-rloo-s0")
    for entry, run in ((RUN, "r2m-s0"), (OTHER_RUN, "rloo-s0")):
        made.entry(entry, used=used, runs=[f"night-s-00000000-{run}"], sweeps=["night-s-00000000"])
    runs = [f"night-s-00000000-{run}" for run in ("r2m-s0", "rloo-s0")]
    made.entry(TRAIN, used=used, runs=runs, sweeps=["night-s-00000000"])


def test_sweeps_and_runs_go_with_the_results_that_they_are(made: MadeExecutions) -> None:
    trained(made)
    made.execution(1, TRAIN)
    made.runs.run("mine", [0.1])
    made.execution(2)
    garbage = found(made, 1)
    assert sorted(garbage.entries) == sorted([TRAIN, RUN, OTHER_RUN])
    assert garbage.sweeps == {"night-s-00000000": ["night-s-00000000-r2m-s0", "night-s-00000000-rloo-s0"]}
    collect(made, 1)
    assert (made.there("memo"), made.there("sweeps"), made.there("runs")) == ([], [], ["mine"])


def test_runs_that_a_result_names_stay_with_their_sweep(made: MadeExecutions) -> None:
    trained(made)
    made.entry("evaluate-00000000000d", runs=["night-s-00000000-r2m-s0"])
    made.execution(1, TRAIN)
    made.execution(2, "evaluate-00000000000d")
    garbage = found(made, 1)
    assert sorted(garbage.entries) == sorted([TRAIN, OTHER_RUN])
    assert garbage.sweeps == {}
    collect(made, 1)
    assert made.there("runs") == ["night-s-00000000-r2m-s0", "night-s-00000000-rloo-s0"]


def test_runs_that_no_step_made_stay(made: MadeExecutions) -> None:
    """A file may name a run of the user's own."""
    made.runs.run("mine", [0.1])
    made.entry("evaluate-00000000000d", runs=["mine"])
    made.execution(1, "evaluate-00000000000d")
    collect(made, 0)
    assert (made.there("memo"), made.there("runs")) == ([], ["mine"])


def test_one_that_runs_stays_with_all_that_was_used_since_it_began(made: MadeExecutions) -> None:
    trained(made, used=time.time())
    made.entry(SFT)
    made.entry("sft-000000000000")
    execution = made.execution(1, SFT, end="running")
    for day in (2, 3):
        made.execution(day)
    with Journal(execution.journal):
        garbage = found(made, 1)
        assert [name[6:14] for name in names(garbage)] == ["20261202"]
        assert list(garbage.entries) == ["sft-000000000000"]
    assert len(found(made, 1).entries) == 5


def test_one_on_another_machine_stays(made: MadeExecutions) -> None:
    """Of which there need be no lock here; its lease says that it is there."""
    made.execution(1, end="running")
    made.execution(2)
    holder = Holder(host="h", machine="m", pid=1, born="1", since=0.0, command="c")
    lease = made.storage / "pipelines" / ".night.lease" / "1"
    lease.parent.mkdir()
    lease.write_text(json.dumps(asdict(holder)) + "\n")
    assert names(found(made, 1)) == []
    lease.unlink()
    assert len(names(found(made, 1))) == 1


def begun(made: MadeExecutions, day: int, end: str) -> None:
    """An execution whose train step was killed in its sweep, and what that left."""
    execution = made.execution(day, key="00000000000a", end=end)
    task = {"work": {"name": "night-s-00000000"}}
    (execution.step_folder("s") / "task.json").write_text(json.dumps(task))
    made.sweep("night-s-00000000", "night-s-00000000-r2m-s0")
    made.sweep("night-s-00000000-1", "night-s-00000000-1-r2m-s0")
    made.sweep("night-s-00000000x", "night-s-00000000x-r2m-s0")
    for name in (f".{TRAIN}.kept", f".{TRAIN}.partial"):
        (made.memo.folder / name).mkdir(parents=True)
    (made.memo.folder / f".{TRAIN}.lock").touch()


@pytest.mark.parametrize("end", ["running", "stopped", "failed"])
def test_what_an_unfinished_one_goes_on_with_stays(made: MadeExecutions, end: str) -> None:
    made.execution(1)
    begun(made, 2, end)
    made.entry("train-00000000000a-2")
    garbage = found(made, 1)
    assert (len(garbage.executions), garbage.entries, garbage.halves, garbage.sweeps) == (1, {}, {}, {})
    collect(made, 1)
    assert len(made.there("memo")) == 4
    assert len(made.there("sweeps")) == 3


def test_what_killed_processes_left_goes_with_their_execution(made: MadeExecutions) -> None:
    begun(made, 1, "running")
    made.execution(2)
    garbage = found(made, 1)
    assert list(garbage.sweeps) == ["night-s-00000000", "night-s-00000000-1"]
    assert list(garbage.halves) == [TRAIN]
    collect(made, 1)
    assert made.there("memo") == []
    assert made.there("sweeps") == ["night-s-00000000x"]
    assert made.there("runs") == ["night-s-00000000x-r2m-s0"]
    assert len(made.there("pipelines")) == 2


def test_what_a_process_is_making_stays(made: MadeExecutions) -> None:
    made.execution(1)
    with made.memo.making(SFT) as folders:
        assert folders is not None
        collect(made, 0)
        assert folders[0].is_dir()
        assert folders[1].is_dir()


def test_what_has_come_to_be_used_since_it_was_shown_stays(made: MadeExecutions) -> None:
    made.entry(SFT)
    made.entry(f"{SFT}-2")
    made.execution(1)
    shown = found(made, 0)
    made.execution(2, SFT)
    made.entry(f"{SFT}-3")
    remove_garbage(str(made.storage), shown, 1)
    assert made.there("memo") == [SFT, f"{SFT}-3"]
    assert [kept.folder.name[6:14] for kept in executions(str(made.storage))] == ["20261202"]


def folders_of_all(made: MadeExecutions) -> list[list[str]]:
    return [made.there(place) for place in ("pipelines", "memo", "runs", "sweeps")]


@pytest.mark.parametrize("steps", range(MOMENTS))
def test_killed_in_the_middle_nothing_is_half_and_the_next_one_ends_it(made: MadeExecutions, steps: int) -> None:
    """At each removal and each new name in turn, and after all of them."""
    trained(made)
    begun_at = made.execution(1, TRAIN)
    (begun_at.step_folder("s") / "task.json").write_text(json.dumps({"work": {"name": "night-s-00000000"}}))
    made.entry(SFT)
    made.execution(2, SFT)
    pid = os.fork()
    if pid == 0:
        left = iter(range(steps))

        def counted(of):  # type: ignore[no-untyped-def]
            def call(*arguments):  # type: ignore[no-untyped-def]
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return of(*arguments)

            return call

        gc.removed, Path.rename = counted(gc.removed), counted(Path.rename)  # type: ignore
        collect(made, 1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    for entry in made.memo.folder.glob("[!.]*"):
        assert (entry / "weights").exists()
        assert (entry / "entry.json").exists()
    for folder in (*(made.storage / "runs").glob("[!.]*"), *(made.storage / "sweeps").glob("[!.]*")):
        assert (folder / "journal.jsonl").is_file()
    for each in executions(str(made.storage)):
        assert each.folder.with_name(f"{each.folder.name}.s").exists()
    collect(made, 1)
    pipelines, memo, runs, sweeps = folders_of_all(made)
    assert (len(pipelines), memo, runs, sweeps) == (2, [SFT], [], [])
    assert found(made, 1) == Garbage()
    assert status == (0 if steps == MOMENTS - 1 else signal.SIGKILL)


def test_the_command_says_what_goes_and_asks(made: MadeExecutions, r2m: Command) -> None:
    trained(made)
    made.execution(1, TRAIN)
    made.execution(2)
    before = folders_of_all(made)
    code, out, _ = r2m("pipeline", "gc", "--keep", "1", "--storage", str(made.storage))
    assert code == 0
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in out.splitlines() if "│" in line}
    assert {"executions": "1", "results of steps": "3", "sweeps": "1", "runs": "2"}.items() <= rows.items()
    assert "What MLflow has of them stays" in out
    assert "nothing has been removed: to do it without being asked, --yes" in out
    assert folders_of_all(made) == before
    code, out, _ = r2m("pipeline", "gc", "night", "--keep", "1", "--yes", "--storage", str(made.storage))
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "removed")
    assert len(executions(str(made.storage))) == 1
    code, out, _ = r2m("pipeline", "gc", "--keep", "1", "--storage", str(made.storage))
    assert (code, out) == (0, f"nothing to remove in {made.storage}\n")


def test_what_it_frees_is_what_the_disk_had(made: MadeExecutions) -> None:
    made.entry(SFT)
    made.execution(1)
    ((what, which, size),) = [part for part in found(made, 1).parts(str(made.storage))]
    assert (what, which) == ("results of steps", [SFT])
    assert 10_000 <= size < 40_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nigh", "--keep", "1"), "NAME = 'nigh': no such pipeline has run in "),
        (("--keep", "-1"), "--keep"),
        ((), "--keep"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_goes(
    made: MadeExecutions, r2m: Command, words: tuple[str, ...], said: str
) -> None:
    made.execution(1)
    code, out, err = r2m("pipeline", "gc", *words, "--storage", str(made.storage))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert said in line
    assert len(executions(str(made.storage))) == 1
