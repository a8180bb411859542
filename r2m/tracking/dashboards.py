"""The saved views on an MLflow server's or database's experiments, and the addresses that open them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from r2m.errors import UserError
from r2m.tracking.pages import every_page
from r2m.tracking.views import KIND, VIEW_TAG, Scope, ours, view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

EXPERIMENTS = "r2m/"  # begins the names of experiments
SWEEPS, PIPELINES = "r2m/sweeps/", "r2m/pipelines/"
TRAINING_PAGES = "workflowType=machine_learning"  # of an address: or MLflow's pages are those of GenAI, its default
_SETTING = re.compile(r"sweep\.(?:parameters|baselines\..*?)\.((?:task|policy|reward|algorithm|rollout|run)\.[\w.]+)")


def arms_address(server: str, experiment_id: str, view: str = "arms") -> str:
    """`view`: `first_view` of the experiment."""
    return f"{server}/{link(experiment_id, view)}"


def first_view(experiment: str) -> str:
    """The view on which an experiment of that name opens."""
    return "executions" if experiment.startswith(PIPELINES) else "arms"


def link(experiment_id: str, view: str = "arms") -> str:
    """To one of an experiment's views, from any page of its server."""
    return f"#/experiments/{experiment_id}/runs?{TRAINING_PAGES}&compareRunsMode=CHART&viewStateShareKey={view}"


def install(client: MlflowClient, experiment_id: str, scope: Scope, replace: bool = False) -> list[str]:
    """Give an experiment its kind and its views, as far as it has not the same ones already; the tags that are new.

    A view that was changed in MLflow's pages stays as it is, unless `replace`. Raises UserError as `view_tags`.
    """
    there = client.get_experiment(experiment_id).tags
    new = []
    for key, value in view_tags(scope).items():
        theirs = key in there and not (key.startswith(VIEW_TAG) and ours(there[key]))
        if there.get(key) != value and (replace or not theirs):
            client.set_experiment_tag(experiment_id, key, value)
            new.append(key)
    return new


def install_all(client: MlflowClient, names: Sequence[str] = ()) -> Iterable[tuple[str, list[str]]]:
    """As `install`, in all of r2m's experiments or in those named. Yields name and new tags of each.

    Raises UserError for a name that there is not.
    """
    for experiment in experiments(client, names):
        scope = _scope(client, experiment)
        yield experiment.name, install(client, experiment.experiment_id, scope, replace=True)


def experiments(client: MlflowClient, names: Sequence[str] = ()) -> list[Experiment]:
    """R2M's, all or those named; a sweep's by its name, too. Raises UserError for a name that there is not."""
    found = every_page(lambda token: client.search_experiments(page_token=token))
    known = {experiment.name: experiment for experiment in found}
    if not names:
        return [experiment for name, experiment in known.items() if name.startswith(EXPERIMENTS)]
    places = ("", SWEEPS, PIPELINES)
    wanted = [next((at + name for at in places if at + name in known), SWEEPS + name) for name in names]
    for name, full in zip(names, wanted, strict=True):
        if full not in known:
            there = ", ".join(sorted(name for name in known if name.startswith(EXPERIMENTS)))
            raise UserError(f"EXPERIMENT = {name!r}: MLflow has none of that name; there are: {there or 'none'}")
    return [known[name] for name in dict.fromkeys(wanted)]


def newest(client: MlflowClient, name: str | None = None) -> Experiment | None:
    """The experiment with the run that began last; None where there is none. Raises UserError as `experiments`."""
    found = {e.experiment_id: e for e in experiments(client, [name] if name else [])}
    if len(found) < 2:
        return next(iter(found.values()), None)
    runs = client.search_runs(list(found), order_by=["attributes.start_time DESC"], max_results=1)
    return found[runs[0].info.experiment_id] if runs else next(iter(found.values()))


def scope_of_params(params: Mapping[str, str], sweep: bool) -> Scope:
    """Of an experiment, from the params in MLflow of the sweep's own run, or of {}."""
    settings: dict[str, None] = {}
    for part in ("sweep.parameters.", "sweep.baselines."):  # baselines: of a sweep without a search
        for key in [] if settings else params:
            if key.startswith(part) and (found := _SETTING.fullmatch(key)):
                named = found[1].rpartition(".")[0] if "parameters" in part else found[1]
                settings.setdefault(named)
    try:
        objective = ast.literal_eval(params.get("sweep.objectives", "[]"))[0]["metric"]
    except (ValueError, SyntaxError, LookupError, TypeError):
        return Scope(sweep, settings=tuple(settings))
    return Scope(sweep, objective, tuple(settings))


def _scope(client: MlflowClient, experiment: Experiment) -> Scope:
    if experiment.name.startswith(PIPELINES):
        return Scope(pipeline=True)
    runs = client.search_runs([experiment.experiment_id], "tags.`r2m.arm` = 'sweep'", max_results=1)
    return scope_of_params(runs[0].data.params if runs else {}, bool(runs) or experiment.name.startswith(SWEEPS))


def has_views(experiment: Experiment) -> bool:
    return KIND.items() <= experiment.tags.items() and VIEW_TAG + first_view(experiment.name) in experiment.tags
