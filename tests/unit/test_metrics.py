"""docs/metrics.md defines each metric once, and no other."""

import re
from pathlib import Path

from r2m.metrics import METRICS as METRICS_OF_A_RUN
from r2m.metrics import SWEEP_METRICS

METRICS = [*METRICS_OF_A_RUN, *SWEEP_METRICS]

DOCS = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in DOCS.splitlines()
    if line.startswith("| `")
]


def test_every_metric_is_defined_exactly_once_and_in_the_same_order():
    assert [row[0].strip("`") for row in ROWS] == METRICS


def test_every_row_has_unit_range_definition_and_what_a_bad_value_means():
    assert [row for row in ROWS if len(row) != 5 or not all(row)] == []


def test_keys_are_phase_and_name():
    assert [key for key in METRICS if not re.fullmatch(r"[a-z]+/[a-z0-9_]+", key)] == []


def test_the_document_names_no_metric_that_is_not_there():
    phases = {key.split("/")[0] for key in METRICS}
    named = re.findall(r"`([a-z]+/[a-z0-9_]+)`", DOCS)
    assert {name for name in named if name.split("/")[0] in phases} == set(METRICS)
