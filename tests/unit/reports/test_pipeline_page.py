"""The morning page: in a real browser on one screen of 1280 by 800, and with text of anybody's in it."""

import json
import re
import subprocess

import pytest
from made_morning import STEPS, made_morning, step, trained_runs, verdict
from pages import CHROMIUM, FLAGS, Page, drawn_plots
from plotly.offline import get_plotlyjs

from r2m.reports.pipeline_page import pipeline_html

EVIL = "<script>document.title='owned'</script>\x1b[31m\u202e\"'&"
LONG = "a_pipeline_with_a_name_of_all_fifty_characters_xyz"
CONDITIONS = [
    (True, "Fresh: 5 finished runs on seeds 0, 1, 2, 3, 4, none a search's own."),
    (True, "R2M is better than RLOO (mean gain in eval/gold 0.25, 95 % interval 0.21 to 0.29, p = 0.0625, 5 seeds); "
           "the interval's lower end, on five seeds or more, has to be at least 0."),
    (False, "KL: 9 nats per sequence in the mean and 22 at most; 20 are allowed."),
    (False, "The alarm was raised in 1 of 5 runs, in round 6."),
    (True, "Against the champion, version 3 of r2m.nightly.policy (run nightly-arms-01234567-r2m-s2), it wins 75 % "
           "of 64 held-out prompts by gold (95 % interval 62.5 % to 87.5 %, 2 ties); the interval's lower end has to "
           "be at least 50 %."),
]  # fmt: skip
REFUSED = verdict("R2M is not promoted: its KL is beyond the limit; the alarm was raised.", False, CONDITIONS)


def refused(storage):
    cached = [step(name, "cached") for name in ("sft", "reward")]
    events = [*cached, *map(step, list(STEPS)[2:]), REFUSED]
    return made_morning(storage, *events, runs=trained_runs(storage, alarm=6))


def failed(storage):
    blocked = [step(name, "blocked", reason="it needs arms") for name in list(STEPS)[3:]]
    broken = step("arms", "failed", attempt=3, reason=f"RuntimeError: {'NaN loss ' * 100}")
    return made_morning(storage, step("sft", "cached"), step("reward"), broken, *blocked, status="failed")


def unchanged(storage):
    runs = ((), trained_runs(storage)[1])
    return made_morning(storage, *(step(name, "cached") for name in STEPS), REFUSED, runs=runs)


def large(storage):
    """Long names of everything, twenty steps, seven arms' worth of a label."""
    steps = {f"step_{i:02d}_with_a_name_of_thirty_": use for i, use in enumerate([*STEPS.values()] * 3)}
    events = [
        step(name, "cached" if i % 2 else "done", use=use, made_by=f"{LONG}-20261130T0300Z-0a1b2c.{name}")
        for i, (name, use) in enumerate(steps.items())
    ]
    said = verdict(f"an arm {'of a long name ' * 8}is not promoted: {'its KL is beyond the limit; ' * 9}.", False,
                   CONDITIONS * 2, step=list(steps)[-1])  # fmt: skip
    runs = trained_runs(storage, alarm=6, label="an arm of a very long name, with commas, and with more")
    return made_morning(
        storage, *events, said, steps=steps, name=LONG, run_id=f"{LONG}-20261201T0300Z-0a1b2c", runs=runs
    )


def bare(storage):
    return made_morning(storage, step("sft"), steps={"sft": "sft"})


MADE = {"refused": refused, "failed": failed, "unchanged": unchanged, "large": large, "bare": bare}


def test_the_verdict_then_what_ran_what_was_cached_the_cost_and_the_alarm(tmp_path):
    text = pipeline_html(refused(tmp_path))
    page = Page(text)
    assert (page.plotly, page.outside) == (1, [])
    assert "http" not in text.replace(get_plotlyjs(), "")
    order = (
        "R2M is not promoted",
        "by the clock",
        "trajectories",
        "Fresh: 5 finished",
        "reward-model",
        "On held-out",
    )
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)
    steps = page.table("step", "took")
    assert steps.cell("reward", under="state") == "cached"
    assert steps.cell("reward", under="cached from") == "2026-11-30 03:00 UTC"
    assert (steps.cell("arms", under="state"), steps.cell("arms", under="took")) == ("done", "12 s")
    conditions = page.table("condition")
    assert [cells[0] for cells in conditions.rows] == ["holds", "holds", "no", "no", "holds"]
    assert "The alarm was raised in 1 of 10 runs, of R2M: their gold was" in page.text
    gold, kl = page.drawings["held-out"]
    assert ("Gold reward" in gold.title, "KL" in kl.title) == (True, True)
    assert gold.traces["R2M"][1][-1] > gold.traces["RLOO"][1][-1]
    assert "alarm" in gold.traces


def test_a_step_that_failed_is_the_first_line_though_its_reason_is_endless(tmp_path):
    page = Page(pipeline_html(failed(tmp_path)))
    assert "Failed: arms: RuntimeError: NaN loss" in page.text
    assert len(page.text) < 2000
    assert "No comparison: compared is blocked." in page.text
    assert page.table("step").cell("arms", under="or why").startswith("attempt 3; RuntimeError")


def test_arms_that_a_legend_would_call_alike_are_told_apart(tmp_path):
    runs = trained_runs(tmp_path, label="RLOO")
    page = Page(pipeline_html(made_morning(tmp_path, step("compared"), runs=runs)))
    assert len({name for name in page.drawings["held-out"][0].traces if name}) == 2


def evil_page(storage):
    runs = trained_runs(storage, label=EVIL.replace("\x1b", "").replace("\u202e", ""))
    events = [step("arms", "failed", reason=EVIL), step("sft", "cached", made_by=EVIL),
              verdict(EVIL, True, [(True, EVIL)])]  # fmt: skip
    return pipeline_html(made_morning(storage, *events, runs=runs, name="nightly", status="failed"))


def test_nobodys_text_is_markup_or_a_script(tmp_path):
    text = evil_page(tmp_path)
    plain = Page(pipeline_html(refused(tmp_path / "other")))
    page = Page(text)
    assert page.tags.count("script") == plain.tags.count("script")
    assert "<script>document" not in text.replace(get_plotlyjs(), "")
    assert r"\x1b[31m\u202e" in page.text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_a_browser_draws_it_and_runs_no_text(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(evil_page(tmp_path))
    plots, page = drawn_plots(file, tmp_path / "profile")
    assert plots["held-out"] > 0
    assert "<title>nightly · R2M pipeline</title>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
@pytest.mark.parametrize("which", MADE)
def test_it_fits_on_one_screen(tmp_path, which):
    """Its own height and width, as a browser of 1280 by 800 lays it out, and nothing on top of anything else."""
    measure = """<script>addEventListener("load", () => { const e = document.documentElement
      const tops = [...document.querySelectorAll("h1, .verdict, .tiles, .pair")].map(x => x.getBoundingClientRect())
      const apart = tops.every((x, i) => !i || x.top >= tops[i - 1].bottom)
      document.body.dataset.size = JSON.stringify([e.scrollWidth, e.scrollHeight, apart]) })</script></body>"""
    file = tmp_path / "page.html"
    file.write_text(pipeline_html(MADE[which](tmp_path)).replace("</body>", measure))
    options = ["--window-size=1280,800", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([CHROMIUM, *FLAGS, *options, file.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'data-size="([^"]*)"', done.stdout)
    assert found, done.stderr
    width, height, apart = json.loads(found[1])
    assert (width <= 1280, height <= 800, apart) == (True, True, True), (width, height)
