"""Descriptions in MLflow: what a run is, what came of it."""

import json

from mlflow import MlflowClient
from mlflow_store import mlflow_runs, started

from r2m.config import load
from r2m.runs.journal import Journal
from r2m.tracking.markdown import markdown
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri
from r2m.tracking.notes import NOTE, first_line


def config(*overrides):
    return load("forum", list(overrides)).model_dump(mode="json")


def note(storage, name, experiment="r2m/forum/sft"):
    (run,) = mlflow_runs(default_tracking_uri(storage), name, experiment)
    return run.data.tags[NOTE], run


def test_a_runs_says_arm_seed_and_what_its_recipe_has_otherwise(storage):
    folder = storage / "runs" / "noted"
    tree = config("run.seed=3", "algorithm.lr=1e-3", "reward.feedback=off")
    with started(folder, tree) as journal:
        journal.round(10, {"eval/gold": 0.5, "eval/kl_sequence": 4.0, "reward/proxy": 1.0})
        journal.round(11, {"reward/proxy": 1.5})
        sink = Sink(default_tracking_uri(storage), folder)
        sink.ship()
        first, run = note(storage, "noted")
        what, found = first.split("\n\n")
        said, _, links = what.partition(" [")
        assert said == "**RLOO**, seed 3: recipe forum with `reward.feedback=False`, `algorithm.lr=0.001`."
        assert found == "Round 10, held-out prompts: gold 0.5, KL 4."
        assert f"](#/experiments/{run.info.experiment_id}/runs?" in links
        journal.event("alarm", step=12, began=10, reason="gold *fell* <b>twice</b>")
        journal.event("failed", reason="disk full")
        sink.ship()
    text, _ = note(storage, "noted")
    assert r"**Alarm in round 12**: gold \*fell\* \<b\>twice\</b\>" in text
    assert "Failed: disk full" in text


def test_a_sweeps_has_the_headline_of_its_answer_and_its_runs_lead_to_its_report(storage):
    sweep, name = storage / "sweeps" / "told", "r2m/sweeps/told"
    tree = {"sweep": {"recipe": "forum", "budget": {"trials": 2}, "parameters": {"reward.alpha": {}},
                      "baselines": {"RLOO": {}}, "objectives": [{"metric": "eval/gold"}]}}  # fmt: skip
    uri = default_tracking_uri(storage)
    child = storage / "runs" / "answered-t000-s0"
    tags = {"r2m.trial": "trial 0"}
    started(child, config(), experiment=name, parent="told", tags=tags).close()
    with started(sweep, tree, experiment=name) as journal:
        Sink(uri, sweep).ship()
        (sweep / "answer.json").write_text(json.dumps({"verdict": ["t000 is not better than RLOO.", "more"]}))
        journal.event("finished")
    Sink(uri, sweep).ship()
    Sink(uri, child).ship()
    text, run = note(storage, "told", name)
    said = r"Sweep **told** of the recipe forum: 2 trials over `reward.alpha`; baselines RLOO, judged by eval/gold."
    assert text.startswith(f"{said} [Arms](#/experiments/")
    assert text.endswith("\n\n**t000 is not better than RLOO.**")
    report = f"(#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/report.html?"
    assert report in text
    own, _ = note(storage, "answered-t000-s0", name)
    assert own.startswith("**trial 0** (R2M), seed 0: as the recipe forum. [Arms](#/")
    assert report in own
    experiment = MlflowClient(uri).get_experiment_by_name(name)
    assert experiment.tags[NOTE].startswith(said)
    assert report in experiment.tags[NOTE]
    assert experiment.tags[NOTE].endswith("\n\n**t000 is not better than RLOO.**")


def test_what_somebody_wrote_himself_stays(storage):
    uri, folder = default_tracking_uri(storage), storage / "runs" / "theirs"
    with started(folder, config()) as journal:
        Sink(uri, folder).ship()
        _, run = note(storage, "theirs")
        MlflowClient(uri).set_tag(run.info.run_id, NOTE, "my own words")
        journal.round(1, {"eval/gold": 0.5})
    with Journal(folder / "journal.jsonl") as journal:
        journal.event("finished")
    Sink(uri, folder).ship()
    assert note(storage, "theirs")[0] == "my own words"


def test_markdown_has_nothing_to_read_in_a_name():
    assert markdown("a*b [c](d)\n<e>") == r"a\*b \[c\]\(d\) \<e\>"
    start = {"config": {"reward": {}, "recipe": "mine"}, "tags": {"r2m.arm": "R2M", "r2m.seed": "1"}}
    start["config"] = config() | {"recipe": "my_own"}
    assert first_line(start) == r"**R2M**, seed 1: settings of my\_own."


def test_an_executions_leads_to_its_page_and_says_what_became_of_its_steps(storage):
    uri, name = default_tracking_uri(storage), "r2m/pipelines/nightly"
    folder = storage / "pipelines" / "nightly-20261201T0300Z-abcdef"
    tags = {"r2m.pipeline": "nightly", "r2m.arm": "pipeline", "r2m.tick": "20261201T0300Z"}
    tree = {"pipeline": "nightly", "parameters": {"seeds": [0, 1]}}
    with started(folder, tree, experiment=name, tags=tags) as journal:
        Sink(uri, folder).ship()
        journal.event("step", step="sft", use="sft", state="cached", made_by="nightly-20261130T0300Z-abcdef.sft")
        journal.event("step", step="arms", use="train", state="failed", reason="no *room*")
        journal.event("failed", reason="arms: no *room*")
    Sink(uri, folder).ship()
    text, run = note(storage, folder.name, name)
    assert text.startswith(r"Pipeline **nightly**, tick 2026-12-01 03:00 UTC. [page](#/experiments/")
    assert r"arms: no \*room\*" in text
    assert r"sft cached (nightly-20261130T0300Z-abcdef.sft), arms failed" in text
    experiment = MlflowClient(uri).get_experiment(run.info.experiment_id)
    assert experiment.tags[NOTE].startswith("Executions of the pipeline **nightly**")
    assert [key for key in experiment.tags if "ViewState" in key] == ["mlflow.sharedViewState.executions"]


def test_a_steps_run_is_below_its_executions_and_leads_to_the_sweeps_that_it_ran(storage):
    uri, name = default_tracking_uri(storage), "r2m/pipelines/nightly"
    sweep = storage / "sweeps" / "nightly-arms-12345678"
    with started(sweep, {"sweep": {"recipe": "forum"}}, experiment="r2m/sweeps/nightly-arms-12345678"):
        pass
    Sink(uri, sweep).ship()
    folder = storage / "pipelines" / "nightly-20261201T0300Z-abcdef.arms"
    tags = {"r2m.pipeline": "nightly", "r2m.arm": "train", "r2m.step": "arms"}
    parent = "nightly-20261201T0300Z-abcdef"
    with started(folder, {"step": "arms"}, experiment=name, parent=parent, tags=tags) as journal:
        journal.event("finished", sweeps=[sweep.name])
    Sink(uri, folder).ship()
    text, run = note(storage, folder.name, name)
    assert text.startswith("Step **arms** (train) of nightly-20261201T0300Z-abcdef. [nightly-arms-12345678](#/exp")
    whole = MlflowClient(uri).get_run(run.data.tags["mlflow.parentRunId"])
    assert whole.info.run_name == parent
