"""The registry of metrics: `phase/name` -> label, title, unit, range, definition, and what a bad value means.

It is kept in metrics.yaml. The reports take their headings, titles and units from it, and docs/metrics.md is written
from it. A task may report measures of its own under "task/": `metric` knows any key.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

import yaml


@dataclass(frozen=True)
class Metric:
    """`label`: a column's heading. `title`: a figure's, whose axis has the `unit`."""

    key: str
    label: str
    title: str
    unit: str
    range: str
    definition: str
    bad: str


class Phase(NamedTuple):
    name: str
    about: str
    note: str
    metrics: tuple[Metric, ...]


_TEXT = (files("r2m") / "metrics.yaml").read_text("utf-8")
PHASES = tuple(
    Phase(p["phase"], p["about"], p.get("note", ""), tuple(Metric(**m) for m in p["metrics"]))
    for p in yaml.load(_TEXT, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
)
METRICS = {metric.key: metric for phase in PHASES for metric in phase.metrics}


def metric(key: str) -> Metric:
    """The metric, or one that is called by its key where the registry has none."""
    return METRICS.get(key) or Metric(key, key, key, "", "", "", "")
