"""The descriptions in MLflow of a pipeline's executions and of its steps' runs: what they are, what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from r2m.runs import journal
from r2m.runs.records import Record, last_of_steps
from r2m.tracking.dashboards import SWEEPS, TRAINING_PAGES, link
from r2m.tracking.markdown import markdown

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_SWEEPS = 3  # that a step's run leads to
PAGE_FILE = "page.html"  # of an execution: an artifact


def of_pipeline(start: Record) -> bool:
    """Whether it is a journal of an execution, or of one of its steps."""
    return "r2m.pipeline" in start.get("tags", {})


def first_line_of_pipeline(start: Record) -> str:
    tags = journal.tags(start)
    if step := tags.get("r2m.step"):
        return f"Step **{markdown(step)}** ({markdown(tags['r2m.arm'])}) of {markdown(start.get('parent'))}."
    return f"Pipeline **{markdown(tags['r2m.pipeline'])}**, {markdown(said_tick(tags['r2m.tick']))}."


def about_pipelines(start: Record) -> str:
    """Of the experiment."""
    name = markdown(start["tags"]["r2m.pipeline"])
    return f"Executions of the pipeline **{name}**; under each, the runs of its steps that were not there already."


def pipeline_note(
    client: MlflowClient, start: Record, events: Sequence[Record], experiment: str, run: str
) -> tuple[list[str], str]:
    """Links, and what came of it."""
    last: dict[str, Any] = next((e for e in reversed(events) if e["name"] in ("finished", "failed", "stopped")), {})
    if "r2m.step" in start["tags"]:
        found = f"{last.get('name', 'running').capitalize()}. {markdown(last.get('reason', ''))}".strip()
        return _sweep_links(client, last.get("sweeps", [])), found
    verdict = next((e["text"] for e in reversed(events) if e["name"] == "verdict"), "")
    steps = last_of_steps(events)
    said = [f"{markdown(name)} {e['state']}" + (f" ({markdown(e['made_by'])})" if e["state"] == "cached" else "")
            for name, e in steps.items()]  # fmt: skip
    parts = [f"**{markdown(verdict)}**" if verdict else "", markdown(last.get("reason", "")), ", ".join(said)]
    page = f"#/experiments/{experiment}/runs/{run}/artifacts/{PAGE_FILE}?{TRAINING_PAGES}"
    return [f"[page]({page})"] if last else [], "\n\n".join(part for part in parts if part)


def said_tick(stamp: str) -> str:
    """Of an execution's stamp: 20261201T0300Z."""
    day, _, time = stamp.rstrip("mZ").partition("T")
    said = f"{day[:4]}-{day[4:6]}-{day[6:]} {time[:2]}:{time[2:4]} UTC"
    return f"begun by hand {said}" if stamp.endswith("m") else f"tick {said}"


def _sweep_links(client: MlflowClient, sweeps: Sequence[str]) -> list[str]:
    found = ((name, client.get_experiment_by_name(f"{SWEEPS}{name}")) for name in sweeps[:MOST_SWEEPS])
    return [f"[{markdown(name)}]({link(e.experiment_id)})" for name, e in found if e is not None]
