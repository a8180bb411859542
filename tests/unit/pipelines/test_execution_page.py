"""The page of an execution in a storage: whose runs it has trained, and what it has compared."""

import json
import shutil

import pytest
from made_morning import execution, step, trained_runs, verdict

from r2m.files import write_whole
from r2m.pipelines.memo import Memo, write_entry
from r2m.pipelines.page import morning_of, write_page
from r2m.results.comparison_text import numbers

RUN_ID = "nightly-20261201T0300Z-0a1b2c"
KEY = "0123456789ab"


def entry(storage, name, outputs, sorts, made_by):
    with Memo(str(storage)).making(name) as (folder, _):
        for output, of in sorts.items():
            if of == "file":
                write_whole(folder / "file", outputs[output])
                outputs = outputs | {output: str(folder / "file")}
        write_entry(folder, outputs, sorts, made_by, 60.0)
    return name


@pytest.fixture
def storage(tmp_path):
    """An execution that trained two of ten runs, found the others, and compared all of them."""
    views, comparison = trained_runs(tmp_path)
    for i, view in enumerate(views):
        made_by = f"{RUN_ID}.arms" if i < 2 else "nightly-20261130T0300Z-0a1b2c.arms"
        entry(tmp_path, f"run-{i:012x}", {"runs": [view.run_id], "sweeps": ["s"]}, {"runs": "runs"}, made_by)
    names = [view.run_id for view in views]
    arms = entry(tmp_path, f"train-{KEY}", {"runs": names, "sweeps": ["s"]}, {"runs": "runs"}, f"{RUN_ID}.arms")
    tree = json.dumps(numbers([comparison], []))
    compared = entry(
        tmp_path, f"compare-{KEY}", {"comparison": tree, "runs": names}, {"comparison": "file", "runs": "runs"},
        f"{RUN_ID}.compared",
    )  # fmt: skip
    execution(tmp_path, step("sft"), step("arms", entry=arms), step("compared", entry=compared),
              step("champion"), verdict("R2M is promoted.", True, [(True, "It is better.")]))  # fmt: skip
    return tmp_path


def test_its_own_runs_are_its_cost_and_all_of_them_its_comparison(storage):
    found = morning_of(storage / "pipelines" / RUN_ID)
    assert found.worker_s == 2 * 8 * 3.0
    assert [row.arm.label for row in found.comparison.rows] == ["RLOO", "R2M"]
    assert sum(len(row.arm.runs) for row in found.comparison.rows) == 10
    assert found.verdicts[0].promoted


def test_the_page_lies_in_its_folder(storage):
    page = write_page(storage / "pipelines" / RUN_ID)
    assert page == storage / "pipelines" / RUN_ID / "page.html"
    assert "R2M is promoted." in page.read_text()


def test_runs_and_entries_that_are_gone_leave_a_page_without_a_figure(storage):
    shutil.rmtree(storage / "runs")
    found = morning_of(storage / "pipelines" / RUN_ID)
    assert (found.comparison, found.trajectories) == (None, 0)
    shutil.rmtree(storage / "memo")
    assert "What was compared is not there any more." in write_page(storage / "pipelines" / RUN_ID).read_text()
