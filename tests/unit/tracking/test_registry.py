"""The registry on SQLite: one version for each promotion, an alias that moves once, the way back, and all of it under
kill -9."""

import shutil
from pathlib import Path

import mlflow
import pytest
from made_promotions import promoted, registered, trained
from mlflow import MlflowClient
from registry_kills import killed, until_it_lives

from r2m.errors import UserError
from r2m.tracking.client import client_of
from r2m.tracking.mlflow_sink import default_tracking_uri
from r2m.tracking.registry import ALIAS, PROMOTED, champion, champions, fetched, registered_name, rollback

BOTH = {"policy", "reward"}


@pytest.fixture
def place(storage, tmp_path):
    """A storage with a database, and its address."""
    copy = tmp_path / "s t#o"
    copy.mkdir()
    shutil.copy(storage / "mlflow.db", copy)
    return copy, default_tracking_uri(copy)


@pytest.fixture
def two(place):
    """Two runs that were promoted one after the other."""
    where, uri = place
    for run in ("one", "two"):
        trained(where, run)
        promoted(uri, where, run)
    return place


def rolled_back(uri, pipeline="nightly"):
    with client_of(uri) as client:
        return rollback(client, pipeline)


def champion_of(uri, pipeline="nightly"):
    with client_of(uri) as client:
        return champion(client, pipeline)


def test_a_promotion_has_both_models_which_outlive_the_runs_folder(place, tmp_path):
    where, uri = place
    shutil.copytree(trained(where, "one"), tmp_path / "kept")
    first, is_champion = promoted(uri, where, "one")
    assert (first.version, first.run, first.before, is_champion) == ("1", "one", None, True)
    shutil.rmtree(where / "runs")
    client = MlflowClient(uri)
    for part in BOTH:
        folder = fetched(client, champion_of(uri), part, tmp_path)
        assert sorted(p.name for p in folder.iterdir()) == sorted(
            p.name for p in (tmp_path / "kept" / part).iterdir()
        )
        for file in folder.iterdir():
            assert file.read_bytes() == (tmp_path / "kept" / part / file.name).read_bytes()
    version = client.get_model_version_by_alias("r2m.nightly.policy", ALIAS)
    assert version.description == "R2M is better."
    assert client.get_run(version.run_id).data.tags["r2m.run_id"] == "one"  # linked to its curves
    mlflow.set_tracking_uri(uri)  # as anybody gets it, without a word of ours
    by_alias = Path(mlflow.artifacts.download_artifacts(f"models:/r2m.nightly.policy@{ALIAS}", tracking_uri=uri))
    assert (by_alias / "config.json").read_text() == "policy of one"


def test_the_same_promotion_is_one_version_and_moves_the_alias_once(two):
    where, uri = two
    again, is_champion = promoted(uri, where, "two")
    assert (again.version, is_champion) == ("2", True)
    assert registered(uri) == {"policy": (2, "2"), "reward": (2, "2")}
    rolled_back(uri)
    again, is_champion = promoted(uri, where, "two")
    assert (again.version, is_champion) == ("2", False)
    assert registered(uri) == {"policy": (2, "1"), "reward": (2, "1")}
    assert champion_of(uri).run == "one"


def test_another_promotion_of_the_same_run_writes_nothing_over(two, tmp_path):
    where, uri = two
    (where / "runs" / "two" / "policy" / "config.json").write_text("another")
    promoted(uri, where, "two", key="other")
    assert registered(uri)["policy"] == (3, "3")
    rolled_back(uri)
    folder = fetched(MlflowClient(uri), champion_of(uri), "policy", tmp_path)
    assert (folder / "config.json").read_text() == "policy of two"


def test_back_twice_in_a_row_and_no_further_than_the_first(two):
    where, uri = two
    trained(where, "three")
    promoted(uri, where, "three")
    assert [c.run for c in rolled_back(uri)] == ["three", "two"]
    assert [c.run for c in rolled_back(uri)] == ["two", "one"]
    assert registered(uri) == {"policy": (3, "1"), "reward": (3, "1")}
    with pytest.raises(UserError, match=r"version 1 of r2m\.nightly\.policy .* first champion.*none before it"):
        rolled_back(uri)
    trained(where, "four")
    assert promoted(uri, where, "four")[0].before == "1"
    assert [c.run for c in rolled_back(uri)] == ["four", "one"]


def test_no_way_back_to_what_was_deleted_or_never_was(two):
    _, uri = two
    MlflowClient(uri).delete_model_version("r2m.nightly.policy", "1")
    with pytest.raises(
        UserError, match=r"version 1 of r2m\.nightly\.policy, the champion before this one, was deleted"
    ):
        rolled_back(uri)
    with pytest.raises(UserError, match="NAME = 'weekly': it has no champion; pipelines with one: nightly"):
        rolled_back(uri, "weekly")
    assert champion_of(uri, "weekly") is None


def test_pipelines_have_registries_of_their_own(two):
    where, uri = two
    promoted(uri, where, "two", pipeline="weekly_2.x-y")
    assert registered(uri, "weekly_2.x-y") == {"policy": (1, "1"), "reward": (1, "1")}
    with client_of(uri) as client:
        assert champions(client) == ["nightly", "weekly_2.x-y"]
        client.delete_registered_model_alias(registered_name("nightly", "policy"), ALIAS)
        assert champions(client) == ["weekly_2.x-y"]


def test_a_promotion_killed_between_any_two_writes_is_finished_by_the_next_call(two, tmp_path):
    where, uri = two
    trained(where, "three")
    seen = []

    def look():
        """The old champion or the new one, with its own reward model."""
        of = champion_of(uri)
        rewarded = fetched(MlflowClient(uri), of, "reward", tmp_path) / "config.json"
        assert rewarded.read_text() == f"reward of {of.run}"
        seen.append(of.run)

    said = until_it_lives(
        tmp_path / "log", "promote", uri, str(where), "nightly", "key-three", "three", between=look
    )  # fmt: skip
    once = [line for line in said if line[0] != "log_artifacts"]  # which a kill before the version repeats
    assert [(name, rest[0], rest[-1]) for name, *rest in once if "alias" in name] == [
        ("set_registered_model_alias", "r2m.nightly.reward", "3"),
        ("set_registered_model_alias", "r2m.nightly.policy", "3"),
    ]
    assert [name for name, *_ in once].count("create_model_version") == 2
    assert seen == ["two"] * 6 + ["three"] * 2
    assert registered(uri) == {"policy": (3, "3"), "reward": (3, "3")}
    assert champion_of(uri).before == "2"


def test_a_rollback_killed_between_its_writes_goes_one_back_and_no_further(two, tmp_path):
    where, uri = two
    trained(where, "three")
    promoted(uri, where, "three")
    rollback_of = (tmp_path / "log", "rollback", uri, str(where), "nightly")
    assert killed(*rollback_of)
    assert registered(uri) == {"policy": (3, "3"), "reward": (3, "2")}
    assert killed(*rollback_of)
    assert registered(uri) == {"policy": (3, "2"), "reward": (3, "2")}
    assert champion_of(uri).run == "two"


def test_a_rollback_right_after_a_kill_is_not_undone_by_the_promotion(two):
    """Killed once the alias had moved, before it could be written down that it had."""
    where, uri = two
    MlflowClient(uri).delete_model_version_tag("r2m.nightly.policy", "2", PROMOTED)
    rolled_back(uri)
    assert not promoted(uri, where, "two")[1]
    assert champion_of(uri).run == "one"
