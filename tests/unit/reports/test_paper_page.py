"""The page in a real browser, and what it says where something is missing."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from made_paper import MadePaper, cost, whole
from pages import CHROMIUM, drawn_plots
from plotly.offline import get_plotlyjs

from r2m.paper.claims import judge_all
from r2m.paper.tables import tables
from r2m.reports import paper_figures as figures
from r2m.reports.paper_page import html, summary, write
from r2m.reports.paper_parts import Judged
from r2m.results.experiment import Experiment

PLOTS = {"similarity", "over-training", "conditions", "learning", "reward-kl", "cost"}
EVIL = "<script>document.title='owned'</script>"


def page_of(r: Experiment) -> str:
    return html(r, tables(r), judge_all(r), "r2m paper --recipe forum")


def visible(page: str) -> str:
    """The page without plotly.js and its own scripts, tags taken out."""
    body = page.replace(get_plotlyjs(), "")
    return unescape(
        re.sub(r"<[^>]*>", " ", re.sub(r"<script.*?</script>|<style.*?</style>", "", body, flags=re.S))
    )


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
    text = visible(page_of(whole(made, 2)))
    for said in (
        "Of the paper's 19 claims, 1 holds here, 0 do not, and 18 cannot be judged.", "2 seeds settle no difference",
        "paper: LLaMA3-8B,", "Measured: recipe forum, the gold program as judge", "torch 2.10", "abc",
        "paper-forum-r2m-fixed-omega-s1", "reward.omega_schedule=constant", "22 finished",
    ):  # fmt: skip
        assert said in text, said


def test_what_is_missing_has_a_sentence_in_its_place(made: MadePaper) -> None:
    page = page_of(made.results(missing={"paper-forum-rloo-s0": "failed"}))
    assert "plotly-graph-div" not in page.replace(get_plotlyjs(), "")
    text = visible(page)
    for why in (
        "No run of RLOO or R2M is assessed.", "No run of RLOO or R2M is assessed with two checkpoints or more.",
        "No run of R2M has an evaluation.", "No run of RLOO or R2M has finished.", "The cost has not been measured.",
        "no run of GRPO has finished", "Not among them: paper-forum-rloo-s0 (failed).",
    ):  # fmt: skip
        assert why in text, why


def test_without_hacking_there_is_no_similarity_and_the_page_says_so(made: MadePaper) -> None:
    made.run("RLOO", 0, {"reward/proxy": 1.0})
    made.assess("RLOO", 0)
    assert "enough hacking and enough normal" in str(figures.similarity_matrix(made.results(1)))


def test_the_reward_in_three_ways_is_a_mean_over_seeds(made: MadePaper) -> None:
    for seed, height in enumerate((1.0, 3.0)):
        made.run("R2M", seed, {"eval/proxy": height, "eval/vanilla": 0.0}, {"eval/proxy": height + 1})
    figure = figures.conditions(made.results(2))
    bold = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data if trace.name}
    assert bold == {"with feedback": ([1, 2], [2.0, 3.0]), "without feedback": ([1], [0.0])}


def test_the_cost_is_stacked_by_phase_and_shows_each_process(made: MadePaper) -> None:
    figure = figures.cost(whole(made, 1))
    bars = {trace.name: list(trace.y) for trace in figure.data if trace.type == "bar"}
    assert bars[None] == [100.0, 104.0]
    assert bars["policy"] == [pytest.approx(0.29), pytest.approx(0.32)]
    dots = [list(trace.y) for trace in figure.data if trace.type == "scatter"]
    assert dots == [[100.0, 100.0, 104.0, 104.0], [0.5, 0.5, 0.52, 0.54]]


def test_the_summary_counts_verdicts() -> None:
    judged = [
        Judged("", "", verdict, "")
        for verdict in ("holds", "does not hold", "does not hold", "cannot be judged")
    ]
    assert summary(judged) == "Of the paper's 4 claims, 1 holds here, 2 do not, and 1 cannot be judged."
