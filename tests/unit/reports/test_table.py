import io
import math
from dataclasses import replace

from rich.console import Console

from r2m.reports.table import rich_table, runs_table
from r2m.runs.journal import JournalView


def view(run_id, feedback, rounds, *events):
    config = {"reward": {"feedback": feedback}, "algorithm": {"advantage": "rloo"}, "run": {"seed": 0}}
    start = {"run_id": run_id, "task": "forum", "policy": "sft", "config": config}
    return JournalView(start, rounds, {}, [{"name": name} for name in events])


FINISHED = view(
    "forum-rloo-s0-d10903",
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
    "b-0", True, {0: {"reward/proxy": 1.0, "reward/gold": 0.5}, 1: {"reward/vanilla": 0.125, "reward/gold": math.nan}}
)
ROW = ["forum-rloo-s0-d10903", "RLOO", "-0.50→1.00", "–", "0.25→0.75→0.50", "12.3", "62%"]


def printed(table, **options):
    console = Console(width=80, file=io.StringIO())
    console.print(rich_table(table, **options))
    return console.file.getvalue().splitlines()


def test_a_row_has_the_first_the_best_and_the_last_value_and_nan_is_left_out():
    table = runs_table([FINISHED, RUNNING])
    assert [name.split("\n")[0] for name in table.head[2:]] == ["proxy", "vanilla", "gold", "KL", "no space"]
    assert [cells for _, cells in table.rows] == [
        ROW,
        ["b-0 (running at 2)", "R2M", "1.00→1.00", "0.12", "0.50→0.50→0.50", "–", "–"],
    ]


def test_a_terminal_of_80_columns_shows_each_run_on_a_line():
    lines = printed(runs_table([FINISHED, RUNNING]), whole=range(7))
    assert [line.split() for line in lines if "d10903" in line] == [ROW]


def test_a_winner_has_a_star_and_columns_and_rows_can_be_left_out():
    table = replace(runs_table([FINISHED, RUNNING]), rows=[("winner", ["[red]", *"abcdef"]), ("", "b" * 7)])
    lines = printed(table, names={"run": "arm", "arm": "kind"}, most=1)
    assert [line.split() for line in lines if line.strip() and "─" not in line] == [
        ["arm", "kind"],
        ["[red]", "*", "a"],
    ]
