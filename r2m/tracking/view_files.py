"""The definitions of MLflow's saved views: one readable file a view, in dashboards/mlflow/."""

import sysconfig
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from r2m.config import Section, explain
from r2m.config.strict_yaml import parse
from r2m.errors import UserError

# In a checkout, or where a wheel puts it.
FOLDERS = (Path(__file__).parents[2] / "dashboards", Path(sysconfig.get_path("data")) / "share/r2m/dashboards")
FIRST = ("arms", "hacking_watch", "sweep", "cost")  # of what is shipped; others follow by name

Key = Annotated[str, Field(min_length=1, max_length=200)]  # of a metric, as in docs/metrics.md
CHART_KINDS = ("line", "bar", "parallel", "image")


class Chart(Section):
    """One of: a metric's curve or several ones' (`over` another metric, else over rounds), the last values as bars,
    settings and metrics as parallel coordinates, a picture that the runs have under a key."""

    line: Key | list[Key] | None = None
    over: Key | None = None
    bar: Key | None = None
    parallel: list[Key] | None = None
    image: Key | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Chart":
        given = [kind for kind in CHART_KINDS if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(f"one of {', '.join(CHART_KINDS)} is wanted")
        if self.over and not self.line:
            raise ValueError("over: of a line only")
        return self

    @property
    def metrics(self) -> list[str]:
        """All that it names, in order."""
        line = [self.line] if isinstance(self.line, str) else self.line or []
        return [*line, *(key for key in (self.over, self.bar) if key), *(self.parallel or [])]


class ChartSection(Section):
    title: str
    across: Annotated[int, Field(ge=1, le=6)] = 3  # charts beside each other
    charts: Annotated[list[Chart], Field(min_length=1)]


class View(Section):
    """`columns`: of the table: metrics, tags r2m.…, and "settings", those that vary. "objective": the sweep's."""

    title: str
    of: Literal["all", "sweeps", "pipelines"] = "all"  # experiments that have it; all: of runs
    sweep_run: bool = False  # whether the sweep's own run is one of them
    group: Literal["arm"] | None = None  # None: each run for itself
    show: Literal[10, 20, "all"] = 10  # of the groups or runs, those that are drawn at first
    sort: Key  # a metric, greatest first; by their start MLflow would fold a sweep's runs into one row
    columns: list[Key] = Field([])
    sections: Annotated[list[ChartSection], Field(min_length=1)]

    @property
    def metrics(self) -> list[str]:
        charted = [key for section in self.sections for chart in section.charts for key in chart.metrics]
        columns = [key for key in self.columns if "/" in key]
        return [key for key in dict.fromkeys([*charted, *columns, self.sort]) if key != "objective"]


def load_view(path: Path) -> View:
    """Raises UserError, one line, for a mistake in it."""
    try:
        return View.model_validate(parse(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, View)}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None


@cache
def views() -> dict[str, View]:
    """Id, the file's stem, -> view. Raises UserError as `load_view`, or where there is no folder of them."""
    folder = next((place / "mlflow" for place in FOLDERS if (place / "mlflow").is_dir()), None)
    if folder is None:
        raise UserError(f"dashboards: neither {FOLDERS[0]} nor {FOLDERS[1]} is there; install r2m again")
    found = {path.stem: load_view(path) for path in folder.glob("*.yaml")}
    return {name: found[name] for name in sorted(found, key=lambda n: (n not in FIRST, *(_place(n), n)))}


def _place(name: str) -> int:
    return FIRST.index(name) if name in FIRST else 0
