"""Pipelines by the real command line, on Ray clusters of this machine, with kill -9 of whatever works on them."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from night_results import (
    assert_mlflow_once,
    assert_models_as_undisturbed,
    assert_nothing_twice,
    assert_runs_as_undisturbed,
    entries,
    events_of,
    only,
)
from processes import assert_same_rounds, descendants, undisturbed
from small_night import Night, write_night

from r2m.runs.journal import read
from r2m.tracking.mlflow_sink import default_tracking_uri
from r2m.tracking.registry import champion

STEPS = {"sft", "reward", "search", "arms", "assessed", "alarm", "compared", "champion"}
ELSEWHERE = ("--tracking-uri", "sqlite:///mlflow.db")
ONCE = Counter(
    {use: 1 for use in ("sft", "reward-model", "sweep", "train", "evaluate", "alarm-check", "compare", "promote")}
    | {"run": 4}
)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, forum_models: tuple[str, str]) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    night = Night(folder, write_night(folder, forum_models[1]))
    try:
        yield night
    finally:
        night.clean()


def names(night: Night) -> set[str]:
    return {entry.name for of in entries(night.storage).values() for entry in of}


def assert_champion(night: Night, version: str, before: str | None) -> str:
    """The run that it is of."""
    now = champion(MlflowClient(default_tracking_uri(night.storage)), "small")
    assert now is not None
    assert (now.version, now.before) == (version, before)
    return now.run


@pytest.mark.timeout(0)  # what it waits for has limits of its own
def test_killed_all_over(night: Night, tmp_path: Path) -> None:
    """Each step in its midst and at its end; the driver, the step's process, Ray's workers, an evaluation's, Ctrl-C:
    the same command takes it up at once, and it comes to what an undisturbed night comes to, each thing made once."""
    killed = -signal.SIGKILL
    night.start()
    night.until_said("sft: supervised fine-tuning")
    night.kill_driver()

    night.start(dies_at="sft.before")
    night.until_said("sft: supervised fine-tuning")
    night.kill_step("sft")
    night.end(killed)

    night.start(dies_at="reward.after")
    night.until_said("reward: 4 responses")
    night.kill_step("reward")
    night.end(killed)

    night.start()
    night.kill_worker("search")
    night.until(lambda: night.at_work("search"))
    night.kill_driver()

    night.start(dies_at="search.before")
    night.until_said("search: runs")
    night.kill_step("search")
    night.end(killed)

    night.start()
    night.kill_worker("arms")
    night.until(lambda: night.at_work("arms"))
    night.kill_driver()

    night.start()
    night.until(lambda: night.at_work("arms"))
    night.interrupt()
    assert "Traceback" not in night.end(130)

    night.start(dies_at="arms.after")
    night.until_said("arms: runs")
    night.kill_step("arms")
    night.end(killed)

    night.start(dies_at="alarm.after")  # assessed is then in its midst
    night.end(killed)

    night.start(dies_at="assessed.before")
    night.until_said("assessed: assessing 1/4")
    os.kill(night.pool_process("assessed"), signal.SIGKILL)
    assert "assessed: attempt 2" in night.end(killed)

    night.start(dies_at="compared.after")
    night.end(killed)

    night.start()
    night.until(lambda: list(night.storage.glob("memo/.promote-*.kept/decision.json")))
    night.kill_driver()

    night.start(dies_at="champion.before")
    night.end(killed)

    night.start(dies_at="end.after")
    night.end(killed)

    night.start()
    (line,) = night.end(0).splitlines()
    execution, outcome = line.split(": ")
    assert outcome == "finished"

    assert_nothing_twice(night.storage, ONCE)
    assert_mlflow_once(night.storage, execution, STEPS)
    assert assert_champion(night, "1", None) in only(night.storage, "train").outputs["runs"]
    assert_models_as_undisturbed(night.storage, tmp_path)
    assert_runs_as_undisturbed(night.storage, tmp_path)


def test_a_second_night_runs_nothing(night: Night) -> None:
    before = names(night)
    night.start(tick="2026-12-02T03:00Z")
    said = night.end(0)
    assert said.count("cached: small-20261201T0300Z-") == len(STEPS)
    execution = said.splitlines()[-1].split(": ")[0]
    steps = [event for event in events_of(night.storage, execution) if event["name"] == "step"]
    assert {event["step"]: event["state"] for event in steps} == dict.fromkeys(STEPS, "cached")
    assert list((night.storage / "pipelines").glob(f"{execution}.*")) == []  # a step's run has its folder before all
    assert names(night) == before
    assert_champion(night, "1", None)


@pytest.mark.timeout(0)
def test_a_setting_of_the_reward_model_and_a_node_that_dies(
    night: Night, two_nodes: dict[str, Any], tmp_path: Path
) -> None:
    """What depends on the setting runs, and nothing else; where a node dies, on the one that is left."""
    tick = "2026-12-03T03:00Z"
    night.start("--set", "artefact=0.5", "--address", two_nodes["address"], tick=tick)
    second = two_nodes["raylets"][1]
    orphans = night.until(lambda: night.at_work("arms", second))
    for pid in [second, *descendants(second)]:
        os.kill(pid, signal.SIGKILL)
    execution = night.end(0).splitlines()[-1].split(": ")[0]
    steps = [event for event in events_of(night.storage, execution) if event["name"] == "step"]
    made = dict.fromkeys(STEPS, "done") | {"sft": "cached", "search": "cached"}
    assert {event["step"]: event["state"] for event in steps} == made
    again = Counter({use: n for use, n in ONCE.items() if use not in ("sft", "sweep")})
    assert_nothing_twice(night.storage, ONCE + again)
    for path in orphans.values():
        view = read(path)
        assert "resume" in [event["name"] for event in view.events]
        assert_same_rounds(undisturbed(view, tmp_path), view)
    assert_champion(night, "2", "1")


def test_a_full_disk_and_a_step_that_fails_by_its_input(tmp_path: Path, small_disk: Path) -> None:
    """One line each; the same command goes on when there is room."""
    file = tmp_path / "small.yaml"
    file.write_text(
        "steps:\n  nobody: {use: alarm-check, runs: [nobody]}\n  others: {use: alarm-check, runs: [others]}\n"
    )
    night = Night(tmp_path, file, small_disk)
    filler = small_disk / "filler"

    def fill(but: int) -> None:
        free = os.statvfs(small_disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - but))

    try:
        fill(but=0)
        night.start(*ELSEWHERE)
        assert night.end(2) == "error: disk full: [Errno 28] No space left on device\n"
        filler.unlink()
        fill(but=2**20)  # the page is larger
        night.start(*ELSEWHERE)
        said = night.end(1).splitlines()
        wrong = [f"{name}: failed: runs: {small_disk} has no journal of {name}" for name in ("nobody", "others")]
        assert sorted(said[:4]) == sorted([*wrong, "nobody: started", "others: started"])  # none is tried again
        assert said[4] == "the page was not written: disk full: [Errno 28] No space left on device"
        assert said[5].endswith(": failed")
        filler.unlink()
        night.start(*ELSEWHERE)
        assert "page" not in night.end(1)
    finally:
        night.clean()
