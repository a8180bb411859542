"""The pipeline files that come with the project."""

from pathlib import Path

import pytest

from r2m.pipelines.spec import graph, load_pipeline

FILES = sorted(Path(__file__).parents[3].glob("pipelines/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_each_is_whole_and_on_a_clock(file: Path) -> None:
    pipeline = load_pipeline(file)
    assert pipeline.name == file.stem
    assert pipeline.schedule.cron is not None
    assert list(graph(pipeline))


def test_a_new_policy_is_promoted_by_all_that_is_known_of_it() -> None:
    step = load_pipeline(FILES[0].with_name("forum_nightly.yaml")).steps["champion"]
    assert step.settings["when"].keys() == {"difference", "kl_at_most", "alarm", "champion_win_rate"}
