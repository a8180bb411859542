"""Views of MLflow's pages: from a file to a tag, and into experiments that have them, or don't."""

import base64
import json
import re
import zlib

import pytest
from mlflow import MlflowClient
from mlflow_store import CONFIG, started

from r2m.errors import UserError
from r2m.metrics import METRICS
from r2m.tracking.dashboards import arms_address, experiments, newest, scope_of_params
from r2m.tracking.mlflow_entities import mlflow_params
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri
from r2m.tracking.view_files import load_view, views
from r2m.tracking.views import LONGEST_TAG, VIEW_TAG, Scope, view_tags

SWEPT = Scope(True, "eval/win_rate", ("reward.alpha", "algorithm.lr"))
# A task's own measures.
PATTERNS = re.compile(r"task/\w+")
TREE = {
    "sweep": {
        "recipe": "forum",
        "parameters": {"reward.alpha": {"uniform": [0, 1]}, "algorithm.responses": {"int": [4, 12], "step": 4}},
        "objectives": [{"metric": "eval/win_rate", "direction": "maximize"}],
        "budget": {"trials": 3},
        "baselines": {"R2M, v0.5": {"reward.feedback": True}},
    }
}


def opened(tags, name):
    """A view as MLflow reads it: its name, and the state of the page."""
    saved = json.loads(tags[VIEW_TAG + name])
    kind, _, packed = saved["state"].partition(";")
    assert kind == "deflate"
    return saved, json.loads(zlib.decompress(base64.b64decode(packed)))


def test_arms_are_grouped_by_trial_and_their_charts_stand_in_its_sections():
    saved, state = opened(view_tags(SWEPT), "arms")
    assert (saved["name"], saved["createdAt"]) == ("Arms", saved["updatedAt"])
    assert state["groupBy"] == {
        "aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "r2m.trial"}]
    }  # fmt: skip
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`eval/gold`", False)
    assert "metrics.`eval/kl_sequence`" in state["selectedColumns"]
    assert "tags.`r2m.seed`" in state["selectedColumns"]
    assert state["searchFilter"] == "tags.`r2m.arm` != 'sweep'"  # the sweep's own run is no arm
    charts, sections = state["compareRunCharts"], {s["uuid"]: s for s in state["compareRunSections"]}
    assert len({chart["uuid"] for chart in charts}) == len(charts)
    assert all(sections[chart["metricSectionId"]]["display"] for chart in charts)
    first = [chart["metricKey"] for chart in charts if chart["metricSectionId"] == charts[0]["metricSectionId"]]
    assert first == ["eval/proxy", "eval/gold", "eval/win_rate"]
    over = [c["metricKey"] for c in charts if c.get("selectedXAxisMetricKey") == "eval/kl_sequence"]
    assert over == ["eval/proxy", "eval/gold", "eval/win_rate"]
    folded = [section["name"] for section in sections.values() if not section["display"]]
    assert {"reward", "time", "signal"} <= set(folded)  # where MLflow puts the charts that it makes itself


def test_runs_outside_a_sweep_are_grouped_by_their_arm_and_have_no_view_of_a_sweep():
    tags = view_tags(Scope())
    _, state = opened(tags, "arms")
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "r2m.arm"}]
    assert [key for key in tags if key.startswith(VIEW_TAG)] == [
        f"{VIEW_TAG}{name}" for name in ("arms", "hacking_watch", "cost")
    ]
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_sweeps_view_has_what_varies_and_its_objective():
    _, state = opened(view_tags(SWEPT), "sweep")
    (parallel,) = [chart for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert parallel["selectedParams"] == ["reward.alpha", "algorithm.lr"]
    assert parallel["selectedMetrics"] == ["eval/win_rate", "eval/kl_sequence"]
    assert state["selectedColumns"][0] == "metrics.`eval/win_rate`"
    assert state["selectedColumns"][-2:] == ["params.`reward.alpha`", "params.`algorithm.lr`"]
    assert (state["groupBy"], state["searchFilter"]) == (None, "")


def test_a_pipelines_experiment_has_a_view_of_its_own_and_no_other():
    tags = view_tags(Scope(pipeline=True))
    assert [key for key in tags if key.startswith(VIEW_TAG)] == [f"{VIEW_TAG}executions"]
    assert f"{VIEW_TAG}executions" not in view_tags(SWEPT) | view_tags(Scope())


def test_every_metric_that_a_view_names_is_one():
    assert list(views()) == ["arms", "hacking_watch", "sweep", "cost", "executions"]
    for name, view in views().items():
        unknown = [key for key in view.metrics if key not in METRICS and not PATTERNS.fullmatch(key)]
        assert unknown == [], name


def test_views_keep_far_below_what_mlflow_has_room_for():
    tags = view_tags(Scope(True, "eval/gold", tuple(f"algorithm.setting_{i}" for i in range(200))))
    assert max(map(len, tags.values())) < LONGEST_TAG / 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: x\nsort: a/b\nsections: [{title: y, charts: [{}]}]", "one of line, bar, parallel, image is wanted"),
        ("title: x\nsort: a/b\nsections: [{title: y, charts: [{bar: a/b, over: c/d}]}]", "over: of a line only"),
        ("title: x\nsort: a/b\nsections: []", "sections"),
        ("title: x\nsort: a/b\ngruop: arm\nsections: [{title: y, charts: [{bar: a/b}]}]", "gruop: unknown key"),
        ("title: [", "while parsing"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        load_view(path)
    assert str(path) in str(error.value)


def test_what_varies_is_read_of_the_sweeps_own_params():
    params = dict(mlflow_params(TREE))
    assert scope_of_params(params, True) == Scope(True, "eval/win_rate", ("reward.alpha", "algorithm.responses"))
    without_search = {"sweep": TREE["sweep"] | {"parameters": {}}}
    assert scope_of_params(dict(mlflow_params(without_search)), True).settings == ("reward.feedback",)
    assert scope_of_params({}, False) == Scope()


class TestInstalled:
    @pytest.fixture
    def experiment(self, storage, request):
        """A sweep of one run that was shipped with the run first: its name in MLflow, and the client."""
        name = re.sub(r"\W", "-", request.node.name)
        sweep, full = storage / "sweeps" / name, f"r2m/sweeps/{name}"
        started(sweep, TREE, experiment=full).close()
        started(storage / "runs" / f"{name}-t000-s0", CONFIG, experiment=full, parent=name).close()
        uri = default_tracking_uri(storage)
        for folder in (storage / "runs" / f"{name}-t000-s0", sweep):
            Sink(uri, folder).ship()
        return full, MlflowClient(uri)

    def test_when_an_experiment_is_made_and_with_its_settings_once_the_sweep_is_there(self, experiment):
        name, client = experiment
        tags = client.get_experiment_by_name(name).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"
        _, state = opened(tags, "sweep")
        assert state["compareRunCharts"][0]["selectedParams"] == ["reward.alpha", "algorithm.responses"]

    def test_again_and_what_was_changed_in_the_pages_only_where_it_is_asked_for(self, experiment, r2m, storage):
        name, client = experiment
        found = client.get_experiment_by_name(name)
        mine = json.loads(found.tags[f"{VIEW_TAG}arms"])
        mine["updatedAt"] += 1
        client.set_experiment_tag(found.experiment_id, f"{VIEW_TAG}arms", json.dumps(mine))
        client.delete_experiment_tag(found.experiment_id, f"{VIEW_TAG}cost")
        short = name.rpartition("/")[2]
        Sink(default_tracking_uri(storage), storage / "sweeps" / short).ship()
        tags = client.get_experiment_by_name(name).tags
        assert tags[f"{VIEW_TAG}arms"] == json.dumps(mine)
        assert tags[f"{VIEW_TAG}cost"] == found.tags[f"{VIEW_TAG}cost"]
        asked = ("dashboards", "install", short, "--storage", str(storage))
        assert r2m(*asked) == (0, f"{name}: 1 new\n", "")
        assert r2m(*asked) == (0, f"{name}: as it was\n", "")
        assert client.get_experiment_by_name(name).tags[f"{VIEW_TAG}arms"] == found.tags[f"{VIEW_TAG}arms"]

    def test_the_newest_experiment_is_the_one_with_the_run_that_began_last(self, experiment):
        name, client = experiment
        found = newest(client)
        assert found.name == name
        assert newest(client, name.rpartition("/")[2]).name == name
        assert arms_address("http://h:1", found.experiment_id).startswith(
            f"http://h:1/#/experiments/{found.experiment_id}/runs?"
        )
        assert "r2m/forum/sft" in {e.name for e in experiments(client)}
        assert "Default" not in {e.name for e in experiments(client)}


def test_an_experiment_or_a_server_that_is_not_there_is_one_line(r2m, storage, tmp_path):
    code, out, err = r2m("dashboards", "install", "nobody", "--storage", str(storage))
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"error: EXPERIMENT = 'nobody': MLflow has none of that name; there are: .*r2m/forum/sft.*\n", err
    )
    for options in (("--storage", str(tmp_path)), ("--tracking-uri", "http://127.0.0.1:9")):
        code, out, err = r2m("dashboards", "install", *options)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"error: tracking_uri = '.*': (no such file; .*|the server is down .*)\n", err)
