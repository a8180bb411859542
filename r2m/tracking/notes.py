"""What an experiment and a run are and what came of them, in a line or two of Markdown: MLflow's descriptions."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2m.config import load, recipes
from r2m.errors import UserError
from r2m.metrics import metric
from r2m.runs import journal
from r2m.runs.folder import ANSWER_FILES
from r2m.runs.records import Record
from r2m.tracking.dashboards import TRAINING_PAGES, install, link
from r2m.tracking.markdown import markdown
from r2m.tracking.mlflow_entities import scope_of
from r2m.tracking.pipeline_notes import about_pipelines, first_line_of_pipeline, of_pipeline, pipeline_note

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE = "mlflow.note.content"
FOUND = ("eval/gold", "eval/win_rate", "eval/proxy", "eval/kl_sequence")  # what is said of an evaluation
MOST_DIFFERENCES = 8
COMPARED = ("task", "policy", "reward", "algorithm", "rollout")
REPORT = ANSWER_FILES[0]


class Description:
    """A run's, kept in step with its journal, unless somebody has written there himself."""

    def __init__(self) -> None:
        self._start: Record = {}
        self._events: list[Record] = []
        self._evaluated: Record | None = None  # the last round with an evaluation
        self._there: str | None = None  # in MLflow; None: not ours
        self._run = self._experiment = self._reported = self._first = ""

    def see(self, record: Record) -> None:
        """A record of the journal, in their order."""
        if record["kind"] == "start":
            self._start = record
        elif record["kind"] == "event":
            self._events.append(record)
        elif record["kind"] == "round" and any(key.startswith("eval/") for key in record["metrics"]):
            self._evaluated = record

    def of(self, run: Run, reported: str) -> None:
        """MLflow's run, and the id of the one that has the report."""
        self._run, self._experiment, self._reported = run.info.run_id, run.info.experiment_id, reported
        self._first, there = first_line(self._start), run.data.tags.get(NOTE, "")
        self._there = there if not there or there.startswith(self._first) else None

    def write(self, client: MlflowClient, folder: Path) -> int:
        """The number of requests that it took."""
        if self._there is None:
            return 0
        if of_pipeline(self._start):
            links, found = pipeline_note(client, self._start, self._events, self._experiment, self._run)
        else:
            found = _found(self._events, self._evaluated) if "reward" in self._start["config"] else _answer(folder)
            links = [f"[Arms]({link(self._experiment)})"]
            if self._start.get("experiment") is not None:
                links.append(f"[report]({_artifact(self._experiment, self._reported, REPORT)})")
        note = _note(self._first, links, found)
        if note == self._there:
            return 0
        client.set_tag(self._run, NOTE, note)
        if "reward" not in self._start["config"] and not of_pipeline(self._start):
            _describe(client, self._experiment, self._run, self._start, folder)
        self._there = note
        return 1


def dress(client: MlflowClient, start: Record, run: Run, folder: Path) -> None:
    """Give an experiment its views and its description, as far as it hasn't them. `run`: a sweep's own, or one that
    belongs to none."""
    with suppress(UserError):  # r2m dashboards install says it; a run is none the worse for it
        install(client, run.info.experiment_id, scope_of(start))
    if of_pipeline(start):
        if not client.get_experiment(run.info.experiment_id).tags.get(NOTE):
            client.set_experiment_tag(run.info.experiment_id, NOTE, about_pipelines(start))
        return
    _describe(client, run.info.experiment_id, run.info.run_id, start, folder)


def _describe(client: MlflowClient, experiment_id: str, run: str, start: Record, folder: Path) -> None:
    there = client.get_experiment(experiment_id).tags.get(NOTE, "")
    first = f"Runs of **{markdown(start.get('task'))}** from {markdown(start.get('policy'))}."
    found, links = "", [f"[Arms]({link(experiment_id)})"]
    if start.get("experiment") is not None:
        first, found = _sweep_line(start), _answer(folder)
        links += [f"[Sweep]({link(experiment_id, 'sweep')})", f"[report]({_artifact(experiment_id, run, REPORT)})"]
    note = _note(first, links, found)
    if note != there and (not there or there.startswith(first)):
        client.set_experiment_tag(experiment_id, NOTE, note)


def _note(first: str, links: list[str], found: str) -> str:
    """In two paragraphs: MLflow folds what follows the first few lines away."""
    return f"{first} {', '.join(links)}".rstrip() + (f"\n\n{found}" if found else "")


def first_line(start: Record) -> str:
    """What a run, or a sweep, is: arm, seed, what differs from its recipe."""
    config, tags = start["config"], journal.tags(start)
    if of_pipeline(start):
        return first_line_of_pipeline(start)
    if "reward" not in config:
        return _sweep_line(start)
    arm, kind = tags.get("r2m.trial"), tags["r2m.arm"]
    who = f"**{markdown(arm)}** ({markdown(kind)})" if arm and arm != kind else f"**{markdown(kind)}**"
    seed = f", seed {tags['r2m.seed']}" if "r2m.seed" in tags else ""
    return f"{who}{seed}: {own_settings(config)}."


def own_settings(config: Record) -> str:
    """From the recipe, as it is now: "as the recipe forum", or the settings that are others."""
    recipe = config.get("recipe", "")
    if recipe not in recipes():
        return f"settings of {markdown(recipe)}" if recipe else "settings of its own"
    known = dict(_leaves(load(recipe).model_dump(mode="json")))
    differing = {
        key: value
        for key, value in _leaves(config)
        if key.partition(".")[0] in COMPARED and key in known and known[key] != value
    }
    if not differing:
        return f"as the recipe {markdown(recipe)}"
    shown = [f"`{key}={_code(value)}`" for key, value in list(differing.items())[:MOST_DIFFERENCES]]
    more = f" and {len(differing) - MOST_DIFFERENCES} more" if len(differing) > MOST_DIFFERENCES else ""
    return f"recipe {markdown(recipe)} with {', '.join(shown)}{more}"


def _sweep_line(start: Record) -> str:
    sweep = start["config"].get("sweep", {})
    trials = sweep.get("budget", {}).get("trials")
    baselines = ", ".join(map(markdown, sweep.get("baselines", {})))
    said = f"Sweep **{markdown(start['run_id'])}** of the recipe {markdown(Path(sweep.get('recipe', '')).stem)}"
    if trials:
        said += f": {trials} trials over {', '.join(f'`{_code(key)}`' for key in sweep.get('parameters', {}))}"
    objectives = [markdown(o.get("metric")) for o in sweep.get("objectives", [])]
    judged = f", judged by {' and '.join(objectives)}" if objectives else ""
    return f"{said}{f'; baselines {baselines}' if baselines else ''}{judged}."


def _answer(folder: Path) -> str:
    """The headline of a sweep's answer, as far as there is one."""
    try:
        verdict = json.loads((folder / "answer.json").read_text(encoding="utf-8"))["verdict"]
        return f"**{markdown(verdict[0])}**"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _found(events: list[Record], evaluated: Record | None) -> str:
    """An alarm, the last evaluation, why it failed: what there is of them."""
    alarm = journal.alarm_of(events)
    ended = next((e for e in reversed(events) if e["name"] in ("failed", "pruned") and e.get("reason")), None)
    parts = []
    if alarm:
        parts.append(f"**Alarm in round {alarm.get('step')}**: {markdown(alarm.get('reason', ''))}")
    if evaluated:
        values = evaluated["metrics"]
        said = ", ".join(f"{metric(key).label} {values[key]:.3g}" for key in FOUND if key in values)
        parts.append(f"Round {evaluated['step']}, held-out prompts: {said}.")
    if ended:
        parts.append(f"{ended['name'].capitalize()}: {markdown(ended['reason'])}")
    return " ".join(parts)


def _leaves(tree: Record, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _code(value: Any) -> str:
    return " ".join(str(value).replace("`", "'").split())[:60]


def _artifact(experiment_id: str, run: str, name: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run}/artifacts/{name}?{TRAINING_PAGES}"
