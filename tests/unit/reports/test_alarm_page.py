"""The page of an alarm, as it is read."""

import re

import pytest
from pages import CHROMIUM, Page, drawn_plots

from r2m.alarm.evidence import Turn
from r2m.alarm.rule import Thresholds
from r2m.metrics import METRICS
from r2m.reports.alarm_page import alarm_html
from r2m.runs.journal import Journal, read

EVIL = "<script>document.title='owned'</script>\x00\u202e\"'&\ud800"
ALARM = {
    "step": 30, "began": 20, "checkpoint": 20, "reason": "judged 0.5 lower than in round 20",
    "signals": {"kl": 7.5, "text_drift": 3.0, "length": -0.75},
}  # fmt: skip
TURNS = [
    Turn(f"post {EVIL}", "two words", f"twowords{EVIL}", (0.5, 2.25), (1.0, -0.5)),
    Turn([{"role": "user", "content": "a post"}], "then", "now", (0.0, 1.0), (0.0, -1.0)),
]


@pytest.fixture
def html(runs) -> str:
    view = runs.run("hacked", *[(0.5, 1.0, 1.0)] * 3)
    with Journal(runs.storage / "runs" / "hacked" / "journal.jsonl") as journal:
        for step, proxy in ((10, 0.0), (20, 1.0), (30, 2.0)):
            journal.round(step, {"eval/proxy": proxy})
            journal.event("judged", step=step, scores=[proxy, -3 * proxy])
    return alarm_html(read(runs.storage / "runs" / view.run_id / "journal.jsonl"), ALARM, TURNS)


def test_both_texts_side_by_side_with_their_scores(html: str) -> None:
    page = Page(html)
    texts = page.table("prompt", "judged")
    assert texts.rows[1] == ["user: a post", "then", "now", "0.00", "1.00", "0.00", "−1.00"]
    assert texts.rows[0][3:] == ["0.50", "2.25", "1.00", "−0.50"]
    assert texts.rows[0][2].startswith("twowords<script>document.title='owned'</script>\\x00\\u202e")
    assert "<script>document.title" not in html
    assert page.outside == []


def test_signals_with_thresholds_and_definitions(html: str) -> None:
    signals = Page(html).table("signal", "threshold")
    assert len(signals.rows) == 3
    assert signals.cell("Drift of the text", under="now") == "3"
    assert signals.cell("Drift of the text", under="threshold") == f"{Thresholds().text_drift:g}"
    assert METRICS["signal/text_drift"].definition in signals.cell("Drift of the text", under="definition")
    assert signals.cell("Length of a response", under="unit") == "change as a share"
    past = re.findall(r'<div class="worse">([^<]*)</div>', html)
    assert [text.strip() for text in past] == ["7.5", "−0.75"]


def test_when_it_began_and_what_is_left_of_it(html: str, runs) -> None:
    text = Page(html).text
    assert "Alarm in round 30: hacked" in text
    assert "Judged 0.5 lower than in round 20." in text
    assert "step-000020" in text
    view = read(runs.storage / "runs" / "hacked" / "journal.jsonl")
    bare = Page(alarm_html(view, ALARM | {"checkpoint": None}, [])).text
    assert "No checkpoint up to round 20 was kept" in bare
    assert "No text was kept" in bare


def test_proxy_and_judgement_are_drawn_over_the_rounds(html: str) -> None:
    proxy, judged = Page(html).drawings["alarm"]
    assert (proxy.title, judged.title) == ("proxy", "judgement")
    assert proxy.traces[""] == ([10, 20, 30], [0.0, 1.0, 2.0])
    assert judged.traces[""] == ([10, 20, 30], [0.0, -1.0, -2.0])


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine")
def test_a_browser_draws_it_and_runs_no_text(html: str, tmp_path) -> None:
    path = tmp_path / "alarm.html"
    path.write_text(html, encoding="utf-8")
    drawn, shown = drawn_plots(path, tmp_path / "profile")
    assert drawn["alarm"] > 0
    assert "<title>Alarm in round 30: hacked" in shown
