"""Pipelines by the real command line, on real Ray clusters of this machine, with kill -9 of whatever works on them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_night import Night, write_night


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, forum_models: tuple[str, str]) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    night = Night(folder, write_night(folder, forum_models[1]))
    try:
        yield night
    finally:
        night.clean()


@pytest.mark.timeout(0)  # what it waits for has limits of its own
def test_killed_all_over(night: Night) -> None:
    night.start()
    night.until_said("sft: supervised fine-tuning")
    night.kill_driver()

    night.start(dies_at="sft.before")
    night.until_said("sft: supervised fine-tuning")
    night.kill_step("sft")
    night.end(-signal.SIGKILL)

    night.start(dies_at="reward.after")
    night.until_said("reward: 4 responses")
    night.kill_step("reward")
    night.end(-signal.SIGKILL)

    night.start()
    night.kill_worker("search")
    night.until(lambda: night.at_work("search"))
    night.kill_driver()

    night.start(dies_at="search.before")
    night.until_said("search: runs")
    night.kill_step("search")
    night.end(-signal.SIGKILL)

    night.start()
    night.kill_worker("arms")
    night.until(lambda: night.at_work("arms"))
    night.kill_driver()

    night.start()
    night.until(lambda: night.at_work("arms"))
    night.driver.send_signal(signal.SIGINT)
    night.end(130)

    night.start(dies_at="arms.after")
    night.until_said("arms: runs")
    night.kill_step("arms")
    night.end(-signal.SIGKILL)

    night.start(dies_at="alarm.after")
    night.end(-signal.SIGKILL)

    night.start(dies_at="assessed.before")
    night.until_said("assessed: assessing")
    night.kill_step("assessed")
    night.end(-signal.SIGKILL)

    night.start(dies_at="compared.before")
    night.end(-signal.SIGKILL)

    night.start(dies_at="end.after")
    night.end(-signal.SIGKILL)

    night.start()
    assert night.end(0)
    print(night.said)
