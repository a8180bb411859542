"""The page in a real browser, and what it says where something is missing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_paper import MadePaper, cost, whole
from pages import CHROMIUM, Page, drawn_plots

from r2m.paper.claims import judge_all
from r2m.paper.tables import tables
from r2m.reports import paper_figures as figures
from r2m.reports.paper_page import FAILS, HOLDS, OPEN, Judged, paper_html, summary, write
from r2m.results.experiment import Experiment
from r2m.results.statistics import ENOUGH

PLOTS = {"similarity", "over-training", "conditions", "learning", "reward-kl", "cost"}
EVIL = "<script>document.title='owned'</script>"


def page_of(r: Experiment) -> str:
    return paper_html(r, tables(r), judge_all(r), "r2m paper --recipe forum")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine")
def test_a_browser_draws_every_figure_and_runs_no_text(made: MadePaper, tmp_path: Path) -> None:
    whole(made, 2)
    for name, known in made.assessments.items():
        if known.similarity:
            similar = replace(known.similarity, what=EVIL, labels=[EVIL] * 4)
            made.assessments[name] = replace(known, similarity=similar)
    r = made.results(2, cost=cost())
    paths = write(r, tables(r), judge_all(r), tmp_path / "paper", f"r2m paper --name {EVIL}")
    drawn, page = drawn_plots(tmp_path / "paper" / "paper.html", tmp_path / "profile")
    assert drawn.keys() == PLOTS
    assert all(drawn.values()), drawn
    assert "<title>paper-forum · R2M</title>" in page
    assert len(paths) == 1 + 5 * 3
    assert all(path.read_text() for path in paths)
    assert {path.name for path in (tmp_path / "paper" / "tables").iterdir()} == {
        f"table-{n}.{kind}" for n in range(1, 6) for kind in ("csv", "md", "tex")
    }


def test_the_page_says_where_everything_is_from(made: MadePaper) -> None:
    page = Page(page_of(whole(made, 2)))
    runs = page.table("arm", "settings", "runs")
    assert "reward.omega_schedule=constant" in runs.cell("R2M, fixed omega", under="settings")
    assert runs.cell("R2M, fixed omega", under="runs").split(", ")[1] == "paper-forum-r2m-fixed-omega-s1"
    facts = dict(row for table in page.tables if not table.head for row in table.rows)
    assert facts["versions"] == "torch 2.10"
    assert facts["commit"] == "abc"
    assert facts["runs"].startswith("22 ")
    claims = page.table("claim", "here")
    assert (len(claims.rows), claims.under("here").count("holds")) == (19, 1)
    assert f"--seeds {ENOUGH}" in page.text  # two are too few
    methods = page.table("method", "measured: LC", "TL;DR")
    assert methods.number("R2M", under="measured: WR") == 66.2
    assert methods.number("R2M", under="LLaMA3-8B.*WR") == 38.2


def test_what_is_missing_has_its_reason_in_its_place(made: MadePaper) -> None:
    page = Page(page_of(made.results(missing={"paper-forum-rloo-s0": "failed"})))
    assert page.drawings == {}
    assert set(Page(page_of(whole(made, 2))).drawings) == PLOTS
    assert len(re.findall(r"No run of (RLOO or R2M|R2M) (is|has)\b", page.text)) >= 4  # 1a, 1b, 4, 5
    assert "cost has not been measured" in page.text
    assert "no run of GRPO has finished" in page.text
    assert "paper-forum-rloo-s0 (failed)" in page.text
    assert set(page.table("claim", "here").under("here")) == {OPEN}


def test_without_hacking_there_is_no_similarity_and_the_page_says_so(made: MadePaper) -> None:
    made.run("RLOO", 0, {"reward/proxy": 1.0})
    made.assess("RLOO", 0)
    page = Page(page_of(made.results(1)))
    assert "similarity" not in page.drawings
    assert "enough hacking" in page.text


def test_the_reward_in_three_ways_is_a_mean_over_seeds(made: MadePaper) -> None:
    for seed, height in enumerate((1.0, 3.0)):
        made.run("R2M", seed, {"eval/proxy": height, "eval/vanilla": 0.0}, {"eval/proxy": height + 1})
    figure = figures.conditions(made.results(2))
    bold = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data if trace.name}
    assert bold == {"with feedback": ([96, 192], [2.0, 3.0]), "without feedback": ([96], [0.0])}


def test_the_cost_is_stacked_by_phase_and_shows_each_process(made: MadePaper) -> None:
    figure = figures.cost_bars(whole(made, 1).cost["measurements"])
    bars = {trace.name: list(trace.y) for trace in figure.data if trace.type == "bar"}
    assert bars[None] == [100.0, 104.0]
    assert bars["policy"] == [pytest.approx(0.29), pytest.approx(0.32)]
    dots = [list(trace.y) for trace in figure.data if trace.type == "scatter"]
    assert dots == [[100.0, 100.0, 104.0, 104.0], [0.5, 0.5, 0.52, 0.54]]


def test_the_summary_counts_verdicts() -> None:
    judged = [Judged("", "", verdict, "") for verdict in (HOLDS, FAILS, FAILS, OPEN, OPEN, OPEN)]
    numbers = [int(n) for n in re.findall(r"\d+", summary(judged))]
    assert numbers == [6, 1, 2, 3]
