"""The step that promotes, on runs of tiny models: who is promoted, against whom, and decisions that stand."""

import json
import shutil
from pathlib import Path

import pytest
from made_promotions import registered

from r2m.config import load
from r2m.errors import UserError
from r2m.evaluation.champion import rate_against
from r2m.files import write_whole
from r2m.pipelines.contents import Contents
from r2m.pipelines.spec import key_of
from r2m.pipelines.steps.promote import PROMOTE, PromoteStep
from r2m.pipelines.work import Work
from r2m.policy.loading import load_policy
from r2m.results.comparison import compare_runs
from r2m.results.comparison_text import numbers
from r2m.results.table import Result
from r2m.runs.find import journals
from r2m.tracking.client import client_of
from r2m.tracking.mlflow_sink import default_tracking_uri
from r2m.tracking.registry import champion, fetched, rollback
from r2m.training.loop import run_loop
from r2m.training.start import new_run

SMALL = (
    "task.posts=40", "task.held_out=12", "algorithm.queries=4", "algorithm.rounds=4", "algorithm.microbatch=8",
    "algorithm.sample_batch=8", "algorithm.max_response_tokens=8", "algorithm.temperature=0.8",
    "algorithm.lr=1e-3", "reward.lr=3e-2", "reward.attention_width=16", "reward.num_heads=2", "run.device=cpu",
    "run.eval_every=2", "run.eval_queries=6", "run.checkpoint_every=2", "run.seed=3", "reward.omega_min=0.25",
)  # fmt: skip
ARMS = {"r2m": (), "rloo": ("reward.feedback=off",)}
ANY = {"difference": {"over": "RLOO", "at_least": -100, "finding": False}, "alarm": "any"}  # of one seed


@pytest.fixture(scope="module")
def trained(forum_models, tmp_path_factory):
    """A storage with a run of either arm, and their comparison."""
    policy, reward = forum_models
    storage = tmp_path_factory.mktemp("trained")
    own = (f"policy.model={policy}", f"reward.model={reward}", f"run.storage={storage}")
    for name, settings in ARMS.items():
        run = new_run(load("forum", [*own, *SMALL, *settings]), name)
        run_loop(run.config, run.folder, run.models)
    compared(storage, "c.json")
    return storage


@pytest.fixture
def storage(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "storage")
    return tmp_path / "storage"


def compared(storage, file, baseline=None):
    views, _ = journals(storage, ARMS)
    tree = numbers(*compare_runs([Result(view) for view in views.values()], baseline=baseline))
    write_whole(storage / file, json.dumps(tree, allow_nan=False))


def champion_only(storage, least):
    when = {"champion_win_rate": least, "alarm": "any"}
    return PromoteStep(comparison=str(storage / "c.json"), runs=list(ARMS), arm="RLOO", when=when)


def step_of(storage, arm="R2M", **when):
    return PromoteStep(comparison=str(storage / "c.json"), runs=list(ARMS), arm=arm, when=ANY | when)


def work_of(storage, name, pipeline="nightly"):
    folder, kept = storage / f"product-{name}", storage / f"kept-{name}"
    for place in (folder, kept):
        place.mkdir(exist_ok=True)
    return Work(str(storage), name=name, folder=folder, kept=kept, pipeline=pipeline)


def run_step(storage, name="a", step=None, **how):
    outputs = PROMOTE.run(step or step_of(storage), work_of(storage, name, **how))
    tree = json.loads(Path(outputs["decision"]).read_text())
    assert outputs["verdict"] == tree["verdict"]
    return tree


def test_the_first_is_promoted_with_its_head_and_a_decision_stands(storage, tmp_path):
    tree = run_step(storage)
    assert tree["verdict"] == "R2M is promoted, its run r2m: all of the conditions hold."
    assert (tree["version"], tree["stands"], tree["champion"]) == ("1", True, None)
    uri = default_tracking_uri(storage)
    with client_of(uri) as client:
        first = champion(client, "nightly")
        there = {path.name for path in fetched(client, first, "reward", tmp_path).iterdir()}
        assert {"feedback_head.safetensors", "model.safetensors", "config.json"} <= there
        assert (fetched(client, first, "policy", tmp_path) / "model.safetensors").is_file()
    (storage / "c.json").unlink()  # what a repeated call would decide by: the first one was killed before its end
    assert run_step(storage) == tree
    assert registered(uri) == {"policy": (1, "1"), "reward": (1, "1")}


def test_the_vanilla_reward_model_is_registered_where_there_is_no_feedback(storage, tmp_path):
    step = step_of(storage, "RLOO", difference={"over": "R2M", "at_least": -100, "finding": False})
    compared(storage, "c.json", "R2M")
    assert run_step(storage, step=step)["run"] == "rloo"
    with client_of(default_tracking_uri(storage)) as client:
        there = {path.name for path in fetched(client, champion(client, "nightly"), "reward", tmp_path).iterdir()}
    assert "model.safetensors" in there
    assert "feedback_head.safetensors" not in there


@pytest.mark.parametrize(("least", "promoted"), [(0.0, True), (1.0, False)])
def test_the_champion_is_asked_though_its_runs_folder_is_gone(storage, tmp_path, least, promoted):
    assert run_step(storage, "first", champion_only(storage, least))["promote"]
    shutil.rmtree(storage / "runs" / "rloo")
    tree = run_step(storage, "second", step_of(storage, champion_win_rate=least))
    assert tree["promote"] is promoted
    assert tree["champion"]["run"] == "rloo"
    said = tree["conditions"][-1]["sentence"]
    assert said.startswith("Against the champion, version 1 of r2m.nightly.policy (run rloo), it wins ")
    assert " of 12 held-out prompts by gold (95 % interval " in said
    assert registered(default_tracking_uri(storage))["policy"] == ((2, "2") if promoted else (1, "1"))


def test_against_itself_a_policy_wins_half(storage):
    wins = rate_against(str(storage), "r2m", storage / "runs" / "r2m" / "policy", "itself", storage / "v.jsonl")
    assert (wins.rate, wins.identical, wins.n, wins.judge, wins.against) == (0.5, 12, 12, "gold", "itself")


def test_the_champions_own_run_is_not_promoted_again(storage):
    run_step(storage)
    tree = run_step(storage, "another")
    assert (tree["promote"], "is the champion already" in tree["verdict"]) == (False, True)
    assert registered(default_tracking_uri(storage))["policy"] == (1, "1")


def test_a_cached_decision_does_not_undo_a_rollback(storage):
    run_step(storage)
    step = champion_only(storage, 0.0)
    assert run_step(storage, "b", step)["version"] == "2"
    with client_of(default_tracking_uri(storage)) as client:
        rollback(client, "nightly")
    assert not run_step(storage, "b", step)["stands"]
    assert registered(default_tracking_uri(storage))["policy"] == (2, "1")


def test_what_is_decided_is_a_pipelines_own(storage):
    contents = Contents(str(storage), storage / "memo")
    key = key_of("promote", step_of(storage), contents, "nightly")
    assert key == key_of("promote", step_of(storage), contents, "nightly")
    assert key != key_of("promote", step_of(storage), contents, "weekly")
    assert key != key_of("promote", step_of(storage, alarm="none"), contents, "nightly")


def test_models_that_are_gone_and_a_run_that_is_not_named_are_the_users_mistakes(storage):
    shutil.rmtree(storage / "runs" / "r2m" / "policy")
    with pytest.raises(UserError, match="runs: r2m: its models are gone"):
        run_step(storage)
    other = step_of(storage).model_copy(update={"runs": ["rloo"]})
    with pytest.raises(UserError, match="runs: r2m, which the comparison has, is not one of them"):
        PROMOTE.run(other, work_of(storage, "x"))
    with pytest.raises(ValueError, match="it is the arm itself"):
        step_of(storage, "RLOO")
    write_whole(storage / "c.json", "{")
    with pytest.raises(UserError, match="not a comparison"):
        PROMOTE.run(step_of(storage), work_of(storage, "y"))


PIPELINE = """
steps:
  compared: {use: compare, runs: [r2m, rloo]}
  champion:
    use: promote
    comparison: "${compared.comparison}"
    runs: "${compared.runs}"
    arm: R2M
    when: {difference: {over: RLOO, at_least: -100, finding: false}, alarm: any, champion_win_rate: 0.5}
"""


def test_in_a_pipeline_it_is_done_once_and_found_by_the_next_execution(storage, r2m):
    (storage / "nightly.yaml").write_text(PIPELINE)
    command = ("pipeline", "run", str(storage / "nightly.yaml"), "--storage", str(storage), "--tick")
    code, _, err = r2m(*command, "2026-12-01T03:00Z")
    assert code == 0, err
    assert "champion: R2M is promoted, its run r2m: all of the conditions hold." in err
    uri = default_tracking_uri(storage)
    assert registered(uri) == {"policy": (1, "1"), "reward": (1, "1")}
    code, _, err = r2m(*command, "2026-12-02T03:00Z")
    assert (code, "champion: cached" in err) == (0, True), err
    assert registered(uri) == {"policy": (1, "1"), "reward": (1, "1")}
    page = (storage / "pipelines").glob("nightly-20261202T0300Z-*/page.html")
    assert "Nothing has changed: all of its 2 steps are cached." in next(page).read_text()
    with client_of(uri) as client:
        found = client.get_experiment_by_name("r2m/pipelines/nightly").experiment_id
        runs = client.search_runs([found], "tags.`r2m.role` = 'pipeline'")
        assert ["page.html" in {a.path for a in client.list_artifacts(r.info.run_id)} for r in runs] == [True, True]
    (storage / "weekly.yaml").write_text(PIPELINE)
    code, _, err = r2m("pipeline", "run", str(storage / "weekly.yaml"), "--storage", str(storage))
    assert (code, "compared: cached" in err, "champion: cached" in err) == (0, True, False)
    assert registered(uri, "weekly")["policy"] == (1, "1")


def test_adapters_are_registered_with_the_model_that_they_are_to(forum_models, tmp_path):
    """Which lies in a folder that may go before the champion does."""
    base, reward = tmp_path / "base", forum_models[1]
    shutil.copytree(forum_models[0], base)
    own = (f"policy.model={base}", f"reward.model={reward}", f"run.storage={tmp_path}", "policy.lora.rank=2")
    run = new_run(load("forum", [*own, *SMALL, "reward.feedback=off"]), "rloo")
    run_loop(run.config, run.folder, run.models)
    assert (run.folder / "policy" / "adapter_config.json").is_file()
    views, _ = journals(tmp_path, ["rloo"])
    write_whole(tmp_path / "c.json", json.dumps(numbers(*compare_runs([Result(v) for v in views.values()]))))
    step = champion_only(tmp_path, 0.0).model_copy(update={"runs": ["rloo"]})
    assert run_step(tmp_path, step=step)["promote"]
    shutil.rmtree(base)
    with client_of(default_tracking_uri(tmp_path)) as client:
        policy = fetched(client, champion(client, "nightly"), "policy", tmp_path)
    assert not (policy / "adapter_config.json").exists()
    assert load_policy(str(policy)).config.hidden_size == 32
