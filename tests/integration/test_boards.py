"""The Grafana board and its alert rules, against a real Prometheus that scrapes a real cluster while runs go on."""

import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import free_port, wait_for

from r2m.config import Config
from r2m.metrics import METRICS
from r2m.runs.folder import STOP_FILE
from r2m.runs.journal import read
from r2m.training.ray_train import ray_trainer
from r2m.training.start import StartedRun, new_run

MakeConfig = Callable[..., Config]

BOARD = Path(__file__).parents[2] / "dashboards" / "grafana"
ARM, SHOWN = 'odd "arm" {Ω, é}', 'odd "arm" {Omega, \\xe9}'
PROMETHEUS, PROMTOOL = (shutil.which(name) for name in ("prometheus", "promtool"))

pytestmark = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL), reason="Prometheus is not installed: Debian's package prometheus has it"
)


@pytest.fixture
def runs_under_way(ray_cluster: None, make_config: MakeConfig) -> Iterator[list[StartedRun]]:
    """One in a Ray Train worker, one in a process of Tune's kind."""
    import ray

    from r2m.sweeps.tuner import run_job

    config = make_config("algorithm.rounds=100000", "run.eval_every=10", "run.sample_every=1000")
    runs = [new_run(config, "trained"), new_run(config, "tried", tags={"r2m.trial": ARM})]
    trained, tried = runs
    fit = threading.Thread(target=ray_trainer(trained.config, trained.folder, trained.models).fit)
    fit.start()
    job = {"config": tried.config.model_dump(mode="json"), "folder": str(tried.folder), "models": tried.models}
    task = ray.remote(run_job).remote({"nested": False, "runs": [job]})
    yield runs
    for run in runs:
        (run.folder / STOP_FILE).touch()
    fit.join()
    ray.get(task)


class Prometheus:
    """A server on a free port of loopback, with the board's own configuration but for the place of Ray's list of
    nodes, which only a head with its dashboard writes, and for the pace."""

    def __init__(self, folder: Path) -> None:
        import ray

        nodes = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()]
        (folder / "nodes.json").write_text(json.dumps([{"targets": nodes}]))
        config = yaml.safe_load((BOARD / "prometheus.yml").read_text())
        config["global"] = dict.fromkeys(config["global"], "1s")
        config["rule_files"] = [str(BOARD / name) for name in config["rule_files"]]
        (job,) = config["scrape_configs"]
        job["file_sd_configs"] = [{"files": [str(folder / "nodes.json")]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [
                str(PROMETHEUS), f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.address}", "--log.level=error",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; None while the server is not ready. Raises HTTPError for what it cannot parse."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 503:
                raise
            return None

    def runs(self, query: str) -> dict[str, float]:
        """Run -> value, of the series that a query has now."""
        data = self.ask("query", query=query)
        return {} if data is None else {each["metric"]["run"]: float(each["value"][1]) for each in data["result"]}


@pytest.fixture
def prometheus(ray_cluster: None, tmp_path: Path) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path)
    yield server
    server.process.terminate()
    server.process.communicate()


def test_every_query_of_the_board_has_every_run_while_it_is_under_way(
    runs_under_way: list[StartedRun], prometheus: Prometheus, tmp_path: Path
) -> None:
    from r2m.training.gauges import OWN, SOURCES

    board = json.loads((BOARD / "r2m.json").read_text())
    variables = [v for v in board["templating"]["list"] if v["type"] == "query"]
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {gauge for query in queries for gauge in gauges_of(query)}
    assert asked == {*SOURCES, *OWN}
    unknown = {name for name, sources in SOURCES.items() if all(s.metric not in METRICS for s in sources)}
    names = {"trained", "tried"}

    def whole(text: str) -> str:
        for variable in variables:
            text = text.replace(f"${variable['name']}", variable["allValue"])
        assert "$" not in text
        return text

    def answered() -> bool:
        return all(
            prometheus.runs(whole(query)).keys() == names for query in queries if not gauges_of(query) & unknown
        )

    wait_for(answered, prometheus.process, tmp_path / "storage")
    for query in queries:
        prometheus.ask("query", query=whole(query))  # what no run reports yet is a query, too

    found = {}
    for variable in variables:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        found[variable["name"]] = set(prometheus.ask(f"label/{label}/values", **{"match[]": whole(selector)}))
    assert found == {"arm": {SHOWN, "R2M"}, "run": names, "seed": {"0"}}

    values = {name: prometheus.runs(f"max by (run) (ray_{name})") for name in asked - unknown}
    phases = prometheus.ask("query", query='ray_r2m_tokens_per_second{run="tried"}')["result"]
    assert {each["metric"]["phase"] for each in phases} == {"sample", "train"}
    for run in runs_under_way:
        view = read(run.journal)
        for name, sources in SOURCES.items():
            said = [value * s.factor for s in sources for value in view.series(s.metric)[1]]
            assert name in unknown or values[name][run.name] in said, name
        assert 100_000 - max(view.rounds) <= values["r2m_rounds_left"][run.name] < 100_000
        assert 0 <= values["r2m_checkpoint_age_seconds"][run.name] < 3600

    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 6
    wait_for(lambda: all(r["health"] == "ok" for g in prometheus.ask("rules")["groups"] for r in g["rules"]))
    assert {gauge for rule in rules for gauge in gauges_of(rule["query"])} <= asked

    for run in runs_under_way:
        (run.folder / STOP_FILE).touch()
    # A series that stops has no value from the next scrape on.
    wait_for(lambda: not prometheus.runs("ray_r2m_rounds_left"), prometheus.process, tmp_path / "data")


def gauges_of(query: str) -> set[str]:
    return set(re.findall(r"\bray_(r2m_\w+)", query))


def test_each_alert_fires_and_is_quiet() -> None:
    for what, file in (
        ("check", BOARD / "r2m_alerts.yml"),
        ("test", Path(__file__).with_name("alert_rules_test.yml")),
    ):
        ended = subprocess.run([str(PROMTOOL), what, "rules", file], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
