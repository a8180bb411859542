import io
import math
from dataclasses import replace

from rich.console import Console

from r2m.reports.table import Row, markdown, rich_table, summary
from r2m.runs.journal import JournalView


def view(run_id, feedback, rounds, *events):
    config = {"reward": {"feedback": feedback}, "algorithm": {"advantage": "rloo"}}
    start = {"run_id": run_id, "task": "forum", "policy": "sft", "config": config}
    return JournalView(start, rounds, {}, [{"name": name} for name in events])


FINISHED = view(
    "a-0",
    False,
    {
        0: {"reward/proxy": -0.5, "reward/gold": 0.25, "kl/sequence": 0.0, "task/no_space_share": 0.0},
        1: {"reward/proxy": 2.0, "reward/gold": 0.75, "kl/sequence": 3.0, "task/no_space_share": 0.25},
        2: {"reward/proxy": 1.0, "reward/gold": 0.5, "kl/sequence": 12.34, "task/no_space_share": 0.625},
    },
    "finished",
)
# The last round's gold is NaN and there is no task metric: a run that has not got far.
RUNNING = view(
    "b-0",
    True,
    {0: {"reward/proxy": 1.0, "reward/gold": 0.5}, 1: {"reward/vanilla": 0.125, "reward/gold": math.nan}},
)


def test_a_row_has_the_first_the_best_and_the_last_value():
    assert summary([FINISHED]) == [
        Row(
            "a-0",
            "RLOO",
            "finished",
            3,
            {
                "proxy": (-0.5, 1.0),
                "frozen": (),
                "gold": (0.25, 0.75, 0.5),
                "KL": (12.34,),
                "no space": (0.625,),
            },
        )
    ]


def test_nan_is_left_out_and_what_a_run_has_not_is_a_dash():
    (row,) = summary([RUNNING])
    assert (row.arm, row.status, row.rounds) == ("R2M", "running", 2)
    assert row.values == {
        "proxy": (1.0, 1.0),
        "frozen": (0.125,),
        "gold": (0.5, 0.5, 0.5),
        "KL": (),
        "no space": (),
    }


def test_markdown():
    assert markdown(summary([FINISHED, RUNNING])) == (
        "| run | arm | proxy: first → last | frozen: last | gold: first → best → last "
        "| KL: last | no space: last |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| a-0 | RLOO | -0.50 → 1.00 | – | 0.25 → 0.75 → 0.50 | 12.3 | 62% |\n"
        "| b-0 (running at 2) | R2M | 1.00 → 1.00 | 0.12 | 0.50 → 0.50 → 0.50 | – | – |\n"
    )


def test_the_terminal_shows_the_same_cells_each_on_one_line_of_80_columns():
    named = replace(FINISHED, start=FINISHED.start | {"run_id": "forum-rloo-s0-d10903"})
    console = Console(width=80, file=io.StringIO())
    console.print(rich_table(summary([named, RUNNING])))
    cells = [cell.strip() for cell in markdown(summary([named])).splitlines()[2].strip("|").split("|")]
    (row,) = [line for line in console.file.getvalue().splitlines() if "d10903" in line]
    assert row.split() == [cell.replace(" → ", "→") for cell in cells]
