"""The comparison as it is read: in a real browser, in a terminal of 80 columns, as JSON."""

import json
import re

import pytest
from pages import CHROMIUM, drawn_plots
from plotly.offline import get_plotlyjs
from rich.console import Console

from r2m.reports import page
from r2m.reports.compare_page import html
from r2m.reports.compare_terminal import numbers, terminal
from r2m.results.comparison import compare_runs
from r2m.results.comparison_text import sentences

R2M = ["reward.feedback=on"]
EVIL = "<script>document.title='owned'</script>\x00\x1b[31m\u202e\"'&\ud800"
SAMPLES = {1: [{"prompt": f"{EVIL}{i}", "response": f"two  spaces {EVIL}", "proxy": i, "vanilla": i, "gold": -i}
               for i in range(4)]}  # fmt: skip


def made(runs):
    for seed in range(2):
        runs.run(f"rloo-{seed}", (0.5, 1.0, 1.0), (0.25, 4.0, 2.0), seed=seed, samples=SAMPLES)
        runs.run(f"r2m-{seed}", (0.5, 1.0, 1.0), (0.5, 4.0, 2.0), seed=seed, settings=R2M, samples=SAMPLES)
    return runs


def page_of(runs, assessments=None):
    comparisons, notes = compare_runs(runs.results(assessments))
    return html(f"runs {EVIL}", comparisons, notes)


def printed(runs, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for comparison in compare_runs(runs.results())[0]:
        console.print(terminal(comparison))
    return console.export_text()


def visible(text):
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", text.replace(get_plotlyjs(), ""), flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_what_a_reader_could_not_see_is_shown_by_its_code():
    assert page.said("a\n\tb  c") == "a\n\tb  c"
    assert page.said("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert page.said("\x00\x1b\x7f\x85\r") == r"\x00\x1b\x7f\x85\x0d"
    assert page.said("\u202e\u2028\ud800\ufeff") == r"\u202e\u2028\ud800\ufeff"
    assert page.said([{"role": "user", "content": "<i>"}, {"content": "x"}]) == "user: &lt;i&gt;\n: x"


def test_the_page_is_one_file_with_plotly_once_and_no_address(runs):
    text = page_of(made(runs))
    assert text.count(get_plotlyjs()) == 1
    assert "http" not in text.replace(get_plotlyjs(), "")
    assert not re.search(r"<(link|img|iframe)|src=", text.replace(get_plotlyjs(), ""))


def test_the_page_has_the_verdict_the_numbers_and_the_texts(runs):
    text = visible(page_of(made(runs)))
    places = [text.index(part) for part in (
        "R2M is better than RLOO on each of 2 seeds (mean gain in eval/gold 0.25), which settles nothing",
        "2 finished seeds 0, 1 0.250 0.250 to 0.250",
        "gold at end 2 0.250 0.250 to 0.250 0.5 too few seeds 4.00 4.00",
        "gold at same KL 2 0.250", "frozen at same KL", "Best by gold", "Worst by gold",
        "Liked in training, not by gold",
    )]  # fmt: skip
    assert places == sorted(places)


def test_model_text_and_labels_are_escaped_and_the_page_can_be_encoded(runs):
    runs.run("a", (0.5, 1.0), samples=SAMPLES)
    other = runs.run("b", (0.5, 1.0), samples=SAMPLES, seed=1)
    evil = "<script>document.title=1</script>"
    other.start["config"]["task"]["evil"] = other.start["config"]["policy"]["evil"] = evil
    text = page_of(runs).replace(get_plotlyjs(), "").replace(EVIL, "")
    assert "document.title" in text
    assert "<script>document" not in text
    assert r"\x00\x1b[31m\u202e" in text
    assert "\x00" not in text


def test_setups_have_sections_of_their_own_and_a_warning(runs):
    runs.run("a", (0.5, 1.0, 1.0), settings=["task.artefact=0.5"])
    text = page_of(made(runs))
    shown = visible(text)
    assert "These runs are of 2 setups that differ in task, data, models or evaluation" in shown
    assert text.count("<section") == 2
    keys = re.findall(r'id="plot-([\w-]+)"', text)
    assert len(keys) == len(set(keys)) == 6


def test_what_is_not_there_is_said(runs):
    runs.run("a", status="running")
    text = visible(page_of(runs))
    for why in (
        "No run of RLOO has been evaluated on held-out prompts", "No run has any of reward/gold",
        "1 running at round 0", "No run has a round with its KL", "No texts in its journals yet",
    ):  # fmt: skip
        assert why in text


def test_the_terminal_fits_80_columns_and_has_every_arm_and_sentence(runs):
    made(runs)
    for omega in (0.125, 0.25):
        runs.run(
            f"o{omega}", (0.5, 1.0, 1.0), settings=[*R2M, f"reward.omega_min={omega}", "algorithm.lr=1.5e-4"]
        )
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for part in (
        "baseline, 2 finished",
        "reward.omega_min=0.125",
        "gold at same KL",
        "too few seeds",
    ):
        assert part in flat
    ((comparison,), _) = compare_runs(runs.results())
    assert len(comparison.rows) == 4
    for sentence in sentences(comparison):
        assert sentence in flat


def test_a_label_is_no_markup(runs):
    runs.run("a", (0.5, 1.0), settings=["policy.dtype=float32"])
    runs.run("b", (0.5, 1.0)).start["config"]["policy"]["dtype"] = "[/red]"
    assert "policy.dtype=[/red]" in printed(runs)


def test_the_numbers_are_strict_json(runs):
    comparisons, notes = compare_runs(made(runs).results())
    tree = json.loads(json.dumps(numbers(comparisons, notes), allow_nan=False))
    (setup,) = tree["setups"]
    assert [arm["runs"] for arm in setup["arms"]] == [["rloo-0", "rloo-1"], ["r2m-0", "r2m-1"]]
    assert setup["arms"][1]["values"]["eval/gold"] == {"mean": 0.5, "interval": [0.5, 0.5], "n": 2, "p": None}
    assert setup["differences"][0]["estimate"]["mean"] == 0.25
    assert setup["differences"][0]["finding"] == "too few seeds"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine")
def test_a_browser_draws_every_plot_without_an_error_and_runs_no_text(runs, tmp_path):
    runs.run("apart", (0.5, 1.0, 1.0), settings=["task.artefact=0.5"], samples=SAMPLES)
    path = tmp_path / "compare.html"
    path.write_text(page_of(made(runs)), encoding="utf-8")
    drawn, shown = drawn_plots(path, tmp_path / "profile")
    assert drawn.keys() == {f"{key}-{i}" for key in ("training", "held-out", "reward-kl") for i in range(2)}
    assert all(drawn.values()), drawn
    assert "<title>runs" in shown
    assert "two  spaces &lt;script&gt;document.title='owned'&lt;/script&gt;" in shown
