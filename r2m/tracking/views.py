"""A view's definition as the tag in which MLflow keeps a saved view of an experiment's Runs page.

Saved views are a feature of MLflow since 3.15; what is in one is the state of its page, `EXPERIMENT_PAGE_UI_STATE`
in its sources, and no interface of its own: docs/decisions.md has what was tried.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r2m.errors import UserError
from r2m.metrics import PHASES
from r2m.tracking.view_files import Chart, View, views

VIEW_TAG = "mlflow.sharedViewState."
KIND = {"mlflow.experimentKind": "custom_model_development"}  # "model training", not GenAI, in its pages
LONGEST_TAG = 20_000  # characters of an experiment's tag
SAVED_MS = 1_750_000_000_000  # when ours are said to have been saved: their order in the menu is by this
DRAWN_AT_FIRST = {10: "FIRST_10_RUNS", 20: "FIRST_20_RUNS", "all": "SHOW_ALL"}
MOST_SETTINGS = 12  # that stand beside each other
SMOOTHED = 50  # of 100: over another metric MLflow joins the points of all of an arm's seeds by one line

PageState = dict[str, Any]


@dataclass(frozen=True)
class Scope:
    """What of an experiment a view depends on. `settings`: those that vary, as dotted keys."""

    sweep: bool = False
    objective: str = "eval/gold"
    settings: tuple[str, ...] = ()
    pipeline: bool = False  # executions and their steps' runs, in the place of runs

    @property
    def arm_tag(self) -> str:
        return "r2m.trial" if self.sweep else "r2m.arm"


def view_tags(scope: Scope) -> dict[str, str]:
    """The tags of an experiment that has the views, and of its kind.

    Raises UserError for a mistake in a definition, or one that MLflow has no room for.
    """
    have = ("pipelines",) if scope.pipeline else ("all", "sweeps") if scope.sweep else ("all",)
    own = {name: view for name, view in views().items() if view.of in have}
    tags = {}
    for place, (name, view) in enumerate(own.items()):
        saved = SAVED_MS - 1000 * place
        value = json.dumps({
            "name": view.title, "createdAt": saved, "updatedAt": saved,
            "state": deflated(page_state(name, view, scope)),
        })  # fmt: skip
        if len(value) > LONGEST_TAG:
            raise UserError(f"dashboards: {name}: {len(value)} characters; MLflow has room for {LONGEST_TAG}")
        tags[VIEW_TAG + name] = value
    return KIND | tags


def ours(value: str | None) -> bool:
    """Whether a tag of a view is as we wrote one, some time: one that was changed in MLflow's pages is somebody's."""
    try:
        tree = json.loads(value or "{}")
    except ValueError:
        return False
    return bool(tree.get("updatedAt") == tree.get("createdAt") or tree.get("createdAt") == 0)


def deflated(tree: PageState) -> str:
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(tree).encode())).decode("ascii")


def page_state(name: str, view: View, scope: Scope) -> PageState:
    """The page's state. Charts that MLflow makes of all other metrics are in folded sections, a phase each."""
    charts, sections = [], []
    for i, section in enumerate(view.sections):
        sections.append(_section(f"{name}-{i}", section.title, True) | {"columns": section.across})
        for j, chart in enumerate(section.charts):
            charts.append(_chart(chart, scope) | {"uuid": f"{name}-{i}-{j}", "metricSectionId": f"{name}-{i}"})
    phases = dict.fromkeys(m.key.partition("/")[0] for phase in PHASES for m in phase.metrics)
    sections += [_section(f"{name}-{phase}", phase, False) for phase in [*phases, "images"]]
    grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": scope.arm_tag}]}
    return {
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,  # or they are sorted by name
        "groupBy": grouped if view.group else None,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "runsHiddenMode": DRAWN_AT_FIRST[view.show],
        "selectedColumns": _columns(view.columns, scope),
        "searchFilter": "" if view.sweep_run else "tags.`r2m.arm` != 'sweep'",
        "orderByKey": _column(view.sort, scope),
        "orderByAsc": False,
    }


def _section(uuid: str, title: str, open_: bool) -> PageState:
    return {"uuid": uuid, "name": title, "display": open_, "isReordered": False}


def _chart(chart: Chart, scope: Scope) -> PageState:
    common: PageState = {"deleted": False, "isGenerated": False, "runsCountToCompare": 20}
    if chart.image:
        return common | {
            "type": "IMAGE", "imageKeys": [chart.image], "step": 0
        }  # fmt: skip
    if chart.parallel:
        return common | {
            "type": "PARALLEL", "showAllRuns": True,
            "selectedParams": list(scope.settings[:MOST_SETTINGS]),
            "selectedMetrics": _unique([_meant(key, scope) for key in chart.parallel]),
        }  # fmt: skip
    key, *_ = keys = [_meant(key, scope) for key in chart.metrics]
    common |= {"metricKey": key}
    if chart.bar:
        return common | {"type": "BAR"}
    over = chart.over and _meant(chart.over, scope)
    return common | {
        "type": "LINE", "selectedMetricKeys": [k for k in keys if k != over],
        "lineSmoothness": SMOOTHED if over else 0, "useGlobalLineSmoothing": False,
        "scaleType": "linear", "xAxisScaleType": "linear",
        "range": {}, "yAxisKey": "metric", "yAxisExpressions": [], "ignoreOutliers": False,
        "useGlobalXaxisKey": False, "xAxisKey": "metric" if over else "step", "selectedXAxisMetricKey": over or "",
    }  # fmt: skip


def _columns(names: Sequence[str], scope: Scope) -> list[str]:
    every = [key for name in names for key in (scope.settings if name == "settings" else [name])]
    return _unique([_column(name, scope) for name in every])


def _column(name: str, scope: Scope) -> str:
    """As MLflow's table names it."""
    name = _meant(name, scope)
    kind = "tags" if name.startswith("r2m.") else "metrics" if "/" in name else "params"
    return f"{kind}.`{name}`"


def _meant(key: str, scope: Scope) -> str:
    return scope.objective if key == "objective" else key


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
