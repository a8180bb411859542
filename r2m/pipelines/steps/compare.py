"""compare, alarm-check: runs side by side, as `r2m compare` has them; whether the reward of any was hacked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from r2m.config import Section
from r2m.errors import UserError
from r2m.files import write_whole
from r2m.pipelines.contents import Contents
from r2m.pipelines.steps.evaluate import RunNames
from r2m.pipelines.work import Kind, StepOutputs, Work
from r2m.results.assessment import read_assessment
from r2m.results.comparison import compare_runs
from r2m.results.comparison_text import numbers
from r2m.results.table import Result
from r2m.runs.find import journals
from r2m.runs.folder import ASSESSMENT, run_folder


class CompareStep(Section):
    """`metric`, `baseline`: as of `r2m compare`."""

    runs: RunNames
    metric: Literal["eval/gold", "eval/win_rate", "eval/vanilla"] | None = None
    baseline: str | None = None


class AlarmCheckStep(Section):
    """`on_alarm`: whether a run that raised one fails the step, and with it whatever needs it."""

    runs: RunNames
    on_alarm: Literal["note", "fail"] = "note"


def _seen(names: Sequence[str], contents: Contents) -> list[list[str | None]]:
    folder = Path(contents.storage)
    return [[contents.run(n), contents.place(str(run_folder(str(folder), n) / ASSESSMENT))] for n in names]


def _results(names: Sequence[str], storage: str) -> list[Result]:
    """Raises UserError where one is missing."""
    views, missing = journals(storage, dict.fromkeys(names))
    if missing:
        raise UserError(f"runs: {storage} has no journal of {', '.join(missing)}")
    return [Result(view, read_assessment(run_folder(storage, name))) for name, view in views.items()]


def _compare(step: CompareStep, work: Work) -> StepOutputs:
    from r2m.reports.compare_page import compare_html

    results = _results(step.runs, work.storage)
    comparisons, notes = compare_runs(results, step.metric, step.baseline)
    tree = numbers(comparisons, notes)
    file, page = work.folder / "comparison.json", work.folder / "compare.html"
    write_whole(file, json.dumps(tree, indent=1, allow_nan=False))
    write_whole(page, compare_html(work.pipeline, comparisons, notes))
    return {"comparison": str(file), "page": str(page), "runs": list(step.runs)}


def _alarm_check(step: AlarmCheckStep, work: Work) -> StepOutputs:
    views = [result.view for result in _results(step.runs, work.storage)]
    raised = {view.run_id: view.alarm["reason"] for view in views if view.alarm}
    if raised and step.on_alarm == "fail":
        name, reason = next(iter(raised.items()))
        raise UserError(f"alarm in {len(raised)} of {len(views)} runs: {name}: {reason}")
    file = work.folder / "alarms.json"
    write_whole(file, json.dumps({"runs": len(views), "raised": raised}, indent=1))
    return {"alarms": str(file), "raised": list(raised)}


COMPARE = Kind(
    CompareStep, {"comparison": "file", "page": "file", "runs": "runs"}, 1,
    lambda step, contents: [_seen(step.runs, contents), step.runs, step.metric, step.baseline],
    lambda step, where: None, _compare,
)  # fmt: skip
ALARM_CHECK = Kind(
    AlarmCheckStep, {"alarms": "file", "raised": "runs"}, 1,
    lambda step, contents: [[contents.run(name) for name in step.runs], step.on_alarm],
    lambda step, where: None, _alarm_check,
)  # fmt: skip
