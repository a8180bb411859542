"""Arms side by side in MLflow's own pages, seen by a browser: a chart's curves are found by their colours, and what
arm a colour is by its legend."""

import matplotlib.pyplot as plt
import pytest
import yaml
from made_paper import MadePaper
from made_sweep import MadeSweep
from mlflow import MlflowClient
from mlflow_pages import CHROMIUM, Browser, cards

from r2m.runs.journal import Journal
from r2m.tracking.dashboards import arms_address
from r2m.tracking.mlflow_sink import Sink
from r2m.tracking.views import VIEW_TAG

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")

SEEDS = (100, 101, 102)
ARMS = {"rloo": ("RLOO", {"reward.feedback": False}), "r2m-default": ("R2M default", {"reward.feedback": True})}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("browser"))


def shipped(server, storage, name, runs, tree, artifacts=()):
    """Ship a sweep with its runs; the id of its experiment, and MLflow's client."""
    full = f"r2m/sweeps/{name}"
    with Journal(storage / "sweeps" / name / "journal.jsonl") as journal:
        journal.start(
            name, "forum", "forum-policy", {"sweep": tree}, versions={}, git={}, config_hash="c", data_hash="d",
            datasets=[], experiment=full, tags={"r2m.arm": "sweep", "r2m.sweep": name, "r2m.role": "sweep"},
        )  # fmt: skip
        for step, best in enumerate((0.25, 0.5), 1):
            journal.round(step, {"sweep/best": best, "sweep/value": best - 0.1, "sweep/worker_hours": step})
        journal.event("finished")
    for run in runs:  # first, as it may happen
        Sink(server.uri, storage / "runs" / run).ship()
    Sink(server.uri, storage / "sweeps" / name).ship(artifacts)
    client = MlflowClient(server.uri)
    return client.get_experiment_by_name(full).experiment_id, client


@pytest.fixture(scope="module")
def swept(server, tmp_path_factory):
    """The experiment of a sweep of two arms and three seeds."""
    storage = tmp_path_factory.mktemp("swept")
    made = MadeSweep(storage)
    made.group = {"experiment": f"r2m/sweeps/{made.name}", "parent": made.name}
    for n, (arm, (_, params)) in enumerate(ARMS.items()):
        for seed in SEEDS:
            rounds = [(0.1 * step + 0.2 * n, float(step), 1.0 * step + n) for step in range(1, 5)]
            made.run(arm, params, seed, *rounds)
    picture = storage / "importance.png"
    plt.imsave(picture, [[(1.0, 0.0, 1.0)] * 40] * 20)
    return shipped(server, storage, made.name, made.views, yaml.safe_load(made.text), [picture])


def assert_side_by_side(page, labels, metrics):
    """For each metric one chart at least has all arms' curves, each in its legend's colour, and no others."""
    charts = cards(page)
    for key in metrics:
        legend = {f"{label} ({key})" for label in labels}
        own = [chart for chart in charts if chart.legend.keys() == legend]
        assert own, f"{key}: {[list(chart.legend) for chart in charts]}"
        assert all(len(set(chart.legend.values())) == len(labels) for chart in own)
        assert all(set(chart.curves) == set(chart.legend.values()) for chart in own)


def test_the_arms_of_a_sweep_are_side_by_side(swept, server, browser):
    experiment, client = swept
    page = browser.page(arms_address(server.uri, experiment))
    assert_side_by_side(page, [label for label, _ in ARMS.values()], ["eval/gold", "eval/kl_sequence"])
    for run in client.search_runs([experiment], "tags.`r2m.arm` != 'sweep'"):
        assert run.info.run_name in page  # without unfolding
    assert "Model training" in page


@pytest.mark.parametrize("view", ["hacking_watch", "sweep", "cost"])
def test_every_chart_of_a_view_is_painted(swept, server, browser, view):
    address = arms_address(server.uri, swept[0]).replace("=arms", f"={view}")
    charts = cards(browser.page(address))
    assert len(charts) >= 2
    assert [chart for chart in charts if not chart.painted] == []
    if view == "sweep":
        assert charts[0].parallel
        assert charts[1].images
        assert len(charts[2].curves) == 2  # best and value, of the sweep's own run


@pytest.fixture(scope="module")
def paper(server, tmp_path_factory):
    """The experiment that `r2m paper` makes, of two of its arms."""
    storage = tmp_path_factory.mktemp("paper")
    made = MadePaper(storage)
    made.group = {"experiment": f"r2m/sweeps/{made.name}", "parent": made.name}
    for n, arm in enumerate(("RLOO", "R2M")):
        for seed in range(3):
            rounds = [{"eval/proxy": 0.1 * (t + n) - seed, "eval/kl_sequence": float(t)} for t in range(1, 5)]
            made.run(arm, seed, *rounds)  # those of seed 0 are the first two by proxy
    for run in made.runs:
        with Journal(storage / "runs" / run / "journal.jsonl") as journal:
            journal.samples(4, [{"prompt": "the post", "response": f"by {run}", "proxy": 1.5, "vanilla": 0.25}])
    tree = {"recipe": "forum", "baselines": {"RLOO": {"reward.feedback": False}}, "budget": {"trials": 0}}
    return shipped(server, storage, made.name, made.runs, tree)


def test_the_papers_arms_and_the_texts_of_its_runs_are_side_by_side(paper, server, browser):
    address = arms_address(server.uri, paper[0])
    assert_side_by_side(browser.page(address), ["RLOO", "R2M"], ["eval/proxy", "eval/kl_sequence"])
    texts = browser.page(address.replace("=arms", "=hacking_watch").replace("=CHART", "=ARTIFACT"))
    for run in ("paper-forum-rloo-s0", "paper-forum-r2m-s0"):
        assert f"by {run}" in texts
    assert "[proxy 1.50, vanilla 0.25]" in texts


def test_an_experiment_that_was_made_without_views_has_them_once_they_are_installed(paper, server, browser, r2m):
    experiment, client = paper
    for key in client.get_experiment(experiment).tags:
        if key.startswith(VIEW_TAG) or key == "mlflow.experimentKind":
            client.delete_experiment_tag(experiment, key)
    code, out, _ = r2m("dashboards", "install", "paper-forum", "--tracking-uri", server.uri)
    assert (code, out) == (0, "r2m/sweeps/paper-forum: 5 new\n")
    page = browser.page(arms_address(server.uri, experiment))
    assert_side_by_side(page, ["RLOO", "R2M"], ["eval/proxy", "eval/kl_sequence"])
