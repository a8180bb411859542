"""The registry of metrics, and docs/metrics.md, which is written from it."""

import re
from dataclasses import astuple

from metrics_document import DOCUMENT, document

from r2m.metrics import METRICS, PHASES, metric


def test_the_document_is_what_the_registry_says():
    assert DOCUMENT.read_text("utf-8") == document(), "write it again: python -m tests.metrics_document"


def test_every_metric_has_all_its_fields_and_is_there_once():
    listed = [m for phase in PHASES for m in phase.metrics]
    assert len(listed) == len(METRICS)
    assert [m.key for m in listed if not all(astuple(m))] == []


def test_keys_are_phase_and_name():
    assert [key for key in METRICS if not re.fullmatch(r"[a-z]+/[a-z0-9_]+", key)] == []


def test_the_document_names_no_metric_that_is_not_there():
    phases = {key.split("/")[0] for key in METRICS}
    named = re.findall(r"`([a-z]+/[a-z0-9_]+)`", DOCUMENT.read_text("utf-8"))
    assert {name for name in named if name.split("/")[0] in phases} == set(METRICS)


def test_a_label_or_a_title_is_not_another_metrics():
    """A phase's headings stand side by side, and titles of a page anywhere."""
    titles = [m.title for m in METRICS.values()]
    assert len(set(titles)) == len(titles)
    for phase in PHASES:
        labels = [m.label for m in phase.metrics]
        assert len(set(labels)) == len(labels), phase.name


def test_a_measure_of_a_tasks_own_is_called_by_its_key():
    assert metric("task/rhymes").label == metric("task/rhymes").title == "task/rhymes"
    assert metric("eval/gold") is METRICS["eval/gold"]
