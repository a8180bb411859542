"""The registry on a real MLflow server, which stores the models behind its own address, under kill -9."""

from made_promotions import promoted, registered, trained
from registry_kills import killed, until_it_lives

from r2m.tracking.client import client_of
from r2m.tracking.registry import champion, fetched, rollback


def test_a_promotion_and_a_rollback_survive_kills_and_the_models_come_back(server, tmp_path):
    for run in ("one", "two"):
        trained(tmp_path, run)
    log = tmp_path / "log"
    said = until_it_lives(log, "promote", server.uri, str(tmp_path), "nightly", "key-one", "one")
    names = [name for name, *_ in said]
    for once in ("create_registered_model", "create_model_version", "set_registered_model_alias"):
        assert names.count(once) == 2  # of the policy and of the reward model
    assert registered(server.uri) == {"policy": (1, "1"), "reward": (1, "1")}
    promoted(server.uri, tmp_path, "two")
    for _ in range(2):
        assert killed(tmp_path / "back", "rollback", server.uri, str(tmp_path), "nightly")
    assert registered(server.uri) == {"policy": (2, "1"), "reward": (2, "1")}
    assert not promoted(server.uri, tmp_path, "two")[1]
    with client_of(server.uri) as client:
        found = champion(client, "nightly")
        (tmp_path / "to").mkdir()
        reward = fetched(client, found, "reward", tmp_path / "to")
        assert (reward / "config.json").read_text() == "reward of one"
        assert (reward / "feedback_head.safetensors").read_bytes() == b"head of one"
        promoted(server.uri, tmp_path, "one", key="again")
        assert [c.version for c in rollback(client, "nightly")] == ["3", "1"]
