"""The comparison as it is read: in a real browser, in a terminal of 80 columns, as JSON."""

import json
import re

import pytest
from pages import CHROMIUM, Page, drawn_plots, grids
from plotly.offline import get_plotlyjs
from rich.console import Console

from r2m.reports.compare_page import compare_html, compare_terminal
from r2m.reports.render import plain, visible
from r2m.results.comparison import compare_runs
from r2m.results.comparison_text import numbers, sentences

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
    return compare_html(f"runs {EVIL}", comparisons, notes)


def printed(runs, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for comparison in compare_runs(runs.results())[0]:
        console.print(compare_terminal(comparison))
    return console.export_text()


def test_what_a_reader_could_not_see_is_shown_by_its_code():
    assert visible("a\n\tb  c") == "a\n\tb  c"
    assert visible("\x00\x1b\x7f\x85\r") == r"\x00\x1b\x7f\x85\x0d"
    assert visible("\u202e\u2028\ud800\ufeff") == r"\u202e\u2028\ud800\ufeff"
    assert plain("<b>&\"'\x00") == r"&lt;b&gt;&amp;&quot;&#x27;\x00"


def test_a_chat_is_shown_with_its_roles(runs):
    chat = [{"role": "user", "content": "<i>"}, {"content": "x"}]
    row = {"prompt": chat, "response": "y", "proxy": 1.0, "vanilla": 1.0, "gold": 1.0}
    runs.run("a", (0.5, 1.0), samples={1: [row]})
    assert "user: &lt;i&gt;\n: x<" in page_of(runs)


def test_the_page_is_one_file_with_plotly_once_and_no_address(runs):
    text = page_of(made(runs))
    page = Page(text)
    assert (page.plotly, page.outside) == (1, [])
    assert "http" not in text.replace(get_plotlyjs(), "")


def test_the_page_has_the_verdict_the_numbers_and_the_texts_in_this_order(runs):
    page = Page(page_of(made(runs)))
    means = page.table("runs", "vanilla")
    assert means.number("RLOO", under="gold") == 0.25
    assert means.number("R2M", under="gold") == 0.5
    assert means.number("R2M", under="KL") == 4.0
    assert re.findall(r"\d+", means.cell("RLOO", under="runs")) == ["2", "0", "1"]  # of them, and their seeds
    differences = page.table("p", "interval", "finding")
    assert differences.number("R2M", "gold at end", under="mean") == 0.25
    assert differences.number("R2M", "gold at same KL", under="mean") == 0.25
    assert differences.number("R2M", "vanilla at same KL", under="mean") == 0
    assert differences.number("R2M", "gold at end", under=r"\bp\b") == 0.5
    assert differences.cell("R2M", "gold at end", under="finding") == "–"  # of two seeds
    (comparison,), _ = compare_runs(runs.results())
    headline = sentences(comparison)[0]
    texts = [table for table in page.tables if "response" in table.head]
    places = [page.text.index(part) for part in (headline, means.head[-1], differences.head[0], "Best by gold")]
    assert places == sorted(places)
    best, worst, liked = texts[:3]
    assert float(best.rows[0][best.column("gold")].replace("−", "-")) == 0
    assert float(worst.rows[0][worst.column("gold")].replace("−", "-")) == -3
    assert liked.rows[0][liked.column("proxy")] == "3.00"  # the proxy's best is gold's worst


def test_model_text_and_labels_are_escaped_and_the_page_can_be_encoded(runs):
    runs.run("a", (0.5, 1.0), samples=SAMPLES)
    other = runs.run("b", (0.5, 1.0), samples=SAMPLES, seed=1)
    evil = "<script>document.title=1</script>"
    other.start["config"]["task"]["evil"] = other.start["config"]["policy"]["evil"] = evil
    text = page_of(runs)
    page = Page(text)
    assert evil in page.text  # read, not run
    assert r"\x00\x1b[31m\u202e" in page.text
    assert "\x00" not in text
    text.encode()


def test_setups_have_sections_of_their_own_and_a_warning(runs):
    runs.run("a", (0.5, 1.0, 1.0), settings=["task.artefact=0.5"])
    page = Page(page_of(made(runs)))
    assert "2 setups" in page.text
    assert page.tags.count("section") == 2
    assert len(page.drawings) == 6
    assert len([table for table in page.tables if "vanilla" in table.head and "runs" in table.head]) == 2


def test_what_is_not_there_is_said(runs):
    runs.run("a", status="running")
    page = Page(page_of(runs))
    assert page.drawings == {}
    assert len(re.findall(r"\bNo (run|texts)\b", page.text)) >= 5  # the verdict, three plots, the texts
    for why in ("RLOO", "1 running", "reward/gold"):
        assert why in page.text


def test_the_terminal_fits_80_columns_and_has_every_arm_and_sentence(runs):
    made(runs)
    for omega in (0.125, 0.25):
        runs.run(f"o{omega}", (0.5, 1.0, 1.0), settings=[*R2M, f"reward.omega_min={omega}", "algorithm.lr=1.5e-4"])
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= 80
    ((comparison,), _) = compare_runs(runs.results())
    means, differences = grids(compare_terminal(comparison))
    assert len(means.rows) == len(comparison.rows) == 4
    assert means.number("RLOO.* 2 finished", under="gold") == 0.25
    assert means.number("R2M.*omega_min=0.125", under="KL") == 1
    at = [cells[0] for cells in differences.rows].index("gold at same KL")
    assert differences.rows[at][differences.column("finding")] == "–"
    flat = " ".join(text.split())
    for sentence in sentences(comparison):
        assert sentence in flat


def test_a_label_is_no_markup(runs):
    runs.run("a", (0.5, 1.0), settings=["policy.dtype=float32"])
    runs.run("b", (0.5, 1.0)).start["config"]["policy"]["dtype"] = "[/red]"
    assert "policy.dtype=[/red]" in printed(runs)


def swept(runs):
    """RLOO and t003 on two seeds, t007 on one: trajectories are 96 a round, as the forum recipe has them."""
    for trial, settings, seeds in (
        ("RLOO", [], 2),
        ("trial 3", [*R2M, "reward.alpha=0.25", "reward.lr=3.57e-5"], 2),
        ("trial 7", [*R2M, "reward.alpha=0.75"], 1),
    ):
        for seed in range(seeds):
            gold = 0.25 * (1 + seed)
            tags = {"r2m.sweep": "s", "r2m.trial": trial}
            runs.run(f"s-{trial[-1]}-{seed}", (gold, 1.0, 1.0), (gold / 2, 4.0, 2.0), seed=seed, settings=settings,
                     start={"tags": tags}, alarm=2 if settings and seed == 0 else None)  # fmt: skip
    return runs


def test_a_sweeps_arms_have_their_trials_names_everywhere_and_their_settings_once(runs):
    page = Page(page_of(swept(runs)))
    means = page.table("runs", "vanilla", "alpha")
    assert [means.number("t003", under="reward.alpha"), means.cell("t003", under="reward.lr")] == [0.25, "3.57e-05"]
    assert [means.number("t007", under="reward.alpha"), means.cell("t007", under="reward.lr")] == [0.75, "0.0001"]
    assert means.cell("RLOO", under="reward.alpha") == ""
    assert "R2M" in means.cell("t007", under="arm")
    assert page.text.count("3.57e-05") == 1
    assert page.text.lower().count("too few seeds") == 1
    names = {name for drawn in page.drawings.values() for panel in drawn for name in panel.traces}
    assert names == {"", "RLOO", "t003", "t007", "alarm"}
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("3.57e-05") == 1
    assert "t003: R2M, reward.alpha=0.25, reward.lr=3.57e-05" in text


def test_the_page_opens_with_one_sentence_of_one_setup(runs):
    page = Page(page_of(swept(runs)))
    (comparison,), _ = compare_runs(runs.results())
    headline = plain_text(sentences(comparison)[0])
    before = page.text[: page.text.index(headline)]
    assert len(before) < 2 * len(f"runs {EVIL} · R2M") + 60  # the window's title and the page's, and nothing else
    assert page.text.index(comparison.setup) > page.text.index(headline)


def plain_text(sentence):
    return " ".join(sentence.split())


def test_the_alarm_is_in_the_table_and_on_every_curve_of_the_run_that_raised_it(runs):
    page = Page(page_of(swept(runs)))
    means = page.table("runs", "alarm")
    assert means.cell("t003", under="raised by") == "1 of 1 round 2"  # the other seed did not look for it
    assert means.cell("t003", under="gold at alarm") == "0.125→0.125"
    assert means.cell("RLOO", under="gold at alarm") == "–"
    panels = {panel.title: panel for key in ("training-0", "held-out-0") for panel in page.drawings[key]
              if panel.title}  # fmt: skip
    gold = panels["Gold reward (never trained on)"].traces["alarm"]
    assert gold == ([2 * 96] * 2, [0.125] * 2)  # the run's own curve, not the mean of t003: (0.125 + 0.25) / 2
    assert {title: "alarm" in panel.traces for title, panel in panels.items()} == dict.fromkeys(panels, True)
    assert len(panels) == 6
    (over_kl, *_) = page.drawings["reward-kl-0"]
    assert over_kl.traces["alarm"] == ([4.0] * 2, [2.0] * 2)


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
    runs.run("apart", (0.5, 1.0, 1.0), settings=["task.artefact=0.5"], samples=SAMPLES, alarm=1)
    path = tmp_path / "compare.html"
    path.write_text(page_of(made(runs)), encoding="utf-8")
    drawn, shown = drawn_plots(path, tmp_path / "profile")
    assert drawn.keys() == {f"{key}-{i}" for key in ("training", "held-out", "reward-kl") for i in range(2)}
    assert all(drawn.values()), drawn
    assert "<title>runs" in shown
    marked = [part for part in shown.split('id="plot-')[1:] if re.search(r"legendtext[^>]*>alarm<", part)]
    assert sorted(part.split('"')[0] for part in marked) == ["held-out-0", "reward-kl-0", "training-0"]
    assert "two  spaces &lt;script&gt;document.title='owned'&lt;/script&gt;" in shown
