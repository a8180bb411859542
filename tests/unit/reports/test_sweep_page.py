"""The report as it is read: in a terminal, as MLflow's table, as a page in a real browser."""

import json
import re
import shlex

import optuna
import pytest
from made_sweep import MadeSweep
from optuna.distributions import CategoricalDistribution
from pages import CHROMIUM, Page, drawn_plots, grids
from plotly.offline import get_plotlyjs
from rich.console import Console

from r2m.reports import sweep_figures as figures
from r2m.reports import sweep_page as report
from r2m.reports.plots import curves
from r2m.reports.style import COLOURS, WINNER
from r2m.reports.sweep_tables import ranking_table, sweep_terminal

RLOO = {"reward.feedback": False}
PLOTS = ("history", "importance", "parallel", "slice", "learning", "reward-kl")
EVIL = "<script>document.title='owned'</script>"


@pytest.fixture
def made(tmp_path):
    return lambda **tree: MadeSweep(tmp_path, **tree)


def swept(made, trials=6, **tree):
    """A sweep with trials of each kind, two baselines and a confirmation on three seeds. t004 wins: its gold is 0.3
    at KL 19; t000, which is R2M's default, has 0.25, RLOO 0.22, and t005 has 0.4 at a KL of 22: too much."""
    m = made(constraints=[{"metric": "eval/kl_sequence", "max": 20}], **tree)
    m.trial(0.5, (0.1, 5.0, 1.0), (0.25, 15.0, 2.0), baseline="R2M default", violation=-5.0)
    for i in range(trials - 1):
        gold, kl = 0.1 * i, 10.0 + 3 * i
        m.trial(i / trials, (0.0, 4.0, 1.0), (gold, kl, 2.0), violation=kl - 20, omega=0.1 * (i % 7))
    m.trial(0.9, (0.1, 6.0, 1.0), state="pruned")
    m.run("rloo", RLOO, 0, (0.2, 8.0, 1.0), (0.22, 18.5, 2.2))
    m.confirm("t004", m.answer().arm("t004").params, *[(0.5, 12.0, 2.0)] * 3)
    m.confirm("t000", {"reward.alpha": 0.5, "reward.omega_min": 0.5}, *[(0.4, 14.0, 2.0)] * 3)
    m.confirm("rloo", RLOO, *[(0.3, 18.0, 2.0)] * 3)
    return m


def printed(answer, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(sweep_terminal(answer))
    return console.export_text()


def page_of(m, text=None):
    return report.sweep_html(m.answer(5400), m.study, m.views, m.text if text is None else text)


def test_the_terminal_shows_ten_arms_and_says_how_many_more_there_are(made):
    m = swept(made, trials=12)
    a = m.answer(5400)
    lines = printed(a).splitlines()
    assert max(map(len, lines)) <= 80
    ranking = grids(sweep_terminal(a))[0]
    assert [cells[0].split()[0] for cells in ranking.rows] == [
        "t004", "R2M", "RLOO", "t003", "t002", "t001", "t005", "t006", "t007", "t008",
    ]  # fmt: skip
    assert "4 more" in printed(a)
    assert ranking.cell("t004", under="state") == "complete"
    numbers = [ranking.number("t004", under=h) for h in ("gold", "KL", "vanilla", "traj", "worker")]
    assert numbers == [0.3, 19, 2, 16, 6]
    styles = {mark for cells, mark in zip(ranking.rows, ranking.marks, strict=True) if "t004" not in cells[0]}
    assert ranking.mark("t004") not in styles  # the winner stands out


def test_the_terminal_has_the_verdict_and_a_command_that_can_be_copied(made):
    a = swept(made).answer(5400)
    text = printed(a)
    flat = " ".join(text.split())
    for sentence in a.verdict:
        assert sentence in flat
    again = text[text.index(" r2m train") + 1 if " r2m train" in text else text.index("r2m train") :].split("\n\n")[0]
    assert shlex.split(again.replace("\\\n", "")) == shlex.split(a.arm(a.winner).command)
    for spent in ("16 finished", "1 pruned", "1.5 hours"):
        assert spent in flat


def test_the_terminal_of_a_sweep_that_has_not_begun(made):
    a = made().answer()
    text = " ".join(printed(a).split())
    for said in (*a.verdict, a.importance_note):
        assert said in text
    assert len(grids(sweep_terminal(a))) == 1  # no confirmation


def test_the_page_is_one_file_with_plotly_once_and_no_address(made):
    text = page_of(swept(made))
    page = Page(text)
    assert (page.plotly, page.outside) == (1, [])
    assert "http" not in text.replace(get_plotlyjs(), "")


def test_the_page_begins_with_the_verdict_and_has_every_arm_parameter_and_command(made):
    m = swept(made)
    a, page = m.answer(), Page(page_of(m))
    confirmation, ranking = page.table("seed 100", "mean"), page.table("state", "reward.alpha")
    places = [page.text.index(part) for part in (*a.verdict, "seed 100", ranking.head[-1])]
    assert places == sorted(places)
    for arm in a.ranking:
        for word in shlex.split(arm.command):
            assert word in page.text
    assert "max: 20" in page.text
    numbers = [ranking.number("t003", under=h) for h in ("eval/gold", "KL", "vanilla", "alpha", "omega_min", "traj")]
    assert numbers == [0.2, 16, 2, 0.333, 0.2, 16]
    assert ranking.number("t005", under="excess") == 2
    assert ranking.cell("t004", under="excess") == ""
    assert ranking.cell("RLOO", under="reward.feedback") == "off"
    for table in (ranking, confirmation):
        rest = {mark for cells, mark in zip(table.rows, table.marks, strict=True) if "t004" not in cells[:2]}
        assert table.mark("t004") not in rest  # the winner stands out
    assert [confirmation.number("R2M default", under=h) for h in ("seed 102", "mean", "KL", "vanilla")] == [
        0.4, 0.4, 14, 2,
    ]  # fmt: skip
    differences = page.table("interval", "finding")
    assert differences.number("RLOO", under="mean gain") == 0.2
    assert differences.number("RLOO", under="seeds") == 3
    assert differences.cell("RLOO", under="finding") == "–"  # of three seeds
    assert differences.number("RLOO", under="KL of winner") == 12
    assert differences.number("RLOO", under="KL of baseline") == 18


def test_text_from_outside_is_escaped(made):
    m = swept(made, baselines={"RLOO": RLOO, f"{EVIL}": {"reward.alpha": 0.25}})
    m.trial(0.1, (0.1, 1.0), state="failed")
    m.study.add_trial(
        optuna.trial.create_trial(
            params={"reward.alpha": EVIL}, distributions={"reward.alpha": CategoricalDistribution([EVIL, "b"])},
            state=optuna.trial.TrialState.FAIL, user_attrs={"reason": f"it said {EVIL}"},
        )
    )  # fmt: skip
    text = page_of(m, text=f"recipe: forum  # {EVIL}")
    assert EVIL not in text
    assert Page(text).text.count(EVIL) >= 4  # the file, the reason, the setting, the baseline's label
    assert f"recipe: forum # {EVIL}" in Page(text).text


def test_what_cannot_be_drawn_is_said(made):
    page = Page(page_of(made()))
    assert page.drawings == {}
    whole = Page(page_of(swept(made)))
    assert set(whole.drawings) == set(PLOTS)
    assert len(re.findall(r"\bNo \w+", page.text)) >= len(PLOTS)  # a reason each
    assert not re.search(r"\bNo (trial|run|arm|importance)", whole.text)


def test_the_front_is_drawn_for_several_objectives_only(made):
    m = made(objectives=[{"metric": "eval/gold"}, {"metric": "eval/kl_sequence", "direction": "minimize"}])
    for gold, kl in ((0.5, 10.0), (0.9, 30.0), (0.4, 11.0)):
        m.trial(0.5, (gold, kl))
    figure = figures.pareto(m.answer())
    on_front, dominated, line = figure.data
    assert (list(on_front.x), list(on_front.y)) == ([30.0, 10.0], [0.9, 0.5])
    assert (list(dominated.x), list(dominated.y)) == ([11.0], [0.4])
    assert (list(line.x), list(line.y)) == ([10.0, 30.0], [0.5, 0.9])
    assert "pareto" in Page(page_of(m)).drawings


def test_one_objective_has_no_front(made):
    assert "pareto" not in Page(page_of(swept(made))).drawings


def test_the_history_has_every_kind_of_trial_and_a_best_so_far_that_keeps_the_constraints(made):
    m = swept(made)
    figure = figures.history(m.answer(), {})
    traces = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    complete = [(0, 0.25), (1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3)]
    assert list(zip(*traces["complete"], strict=True)) == [(n, pytest.approx(v)) for n, v in complete]
    assert traces["breaks a constraint"] == ([5], [0.4])  # KL 22
    assert traces["stopped early"] == ([6], [0.1])
    assert traces["best so far"] == (list(range(7)), [0.25] * 4 + [pytest.approx(0.3)] * 3)


def test_learning_curves_are_means_over_fresh_seeds_on_an_axis_of_trajectories(made):
    m = made(confirm=[100, 101], baselines={"RLOO": RLOO})
    m.run("rloo", RLOO, 100, (0.0, 1.0), (0.2, 3.0))
    m.run("rloo", RLOO, 101, (0.4, 2.0), (0.4, 4.0), (0.9, 5.0))
    m.run("rloo", RLOO, 0, (7.0, 7.0))  # the search's own seed stays out
    figure = curves(list(figures.confirmed(m.answer(), m.views).values()), report.LEARNING)
    bold = [trace for trace in figure.data if trace.line.width == 2.5]
    gold, kl = bold
    assert (list(gold.x), list(gold.y)) == ([8, 16], [pytest.approx(0.2), pytest.approx(0.3)])
    assert list(kl.y) == [1.5, 3.5]
    assert len(figure.data) == 2 + 2 * 2


def test_the_alarm_is_in_the_tables_and_on_the_curves(made, tmp_path):
    m = made(confirm=[100, 101], baselines={"RLOO": RLOO})
    m.trial(0.25, (0.5, 3.0))
    for seed, gold in ((100, 0.5), (101, 0.25)):
        evaluations = (gold, 1.0, 1.0), (gold / 2, 3.0, 2.0)
        m.run("t000", {"reward.alpha": 0.25, "reward.omega_min": 0.5}, seed, *evaluations, alarm=1)
    page = Page(page_of(m))
    assert page.table("seed 100", "alarm").cell("t000", under="raised by") == "2 of 2 round 1"
    assert page.table("seed 100", "alarm").cell("t000", under="gold at") == "0.375→0.188"
    gold, *_ = page.drawings["learning"]
    assert gold.traces["alarm"] == ([8, 8], [0.5, 0.25])
    over_kl, *_ = page.drawings["reward-kl"]
    assert over_kl.traces["alarm"] == ([1.0, 1.0], [0.5, 0.25])
    table = ranking_table(m.answer())
    (row,) = [dict(zip(table["columns"], row, strict=True)) for row in table["data"] if row[1] == "t000"]
    assert (row["alarms"], row["judged_at_alarm"]) == (None, None)  # of the search, which did not look for it
    assert max(map(len, printed(m.answer()).splitlines())) <= 80


def test_the_winner_is_green_and_the_arms_of_the_paper_have_their_colours(made):
    m = swept(made)
    own = {name: group.colour for name, group in figures.confirmed(m.answer(), m.views).items()}
    assert own == {"t004": WINNER, "rloo": COLOURS["RLOO"], "t000": COLOURS["R2M"]}


def test_the_ranking_is_a_table_that_mlflow_can_read(made):
    m = swept(made)
    table = json.loads(json.dumps(ranking_table(m.answer()), allow_nan=False))
    assert table["columns"][:6] == ["rank", "arm", "label", "state", "eval/gold", "feasible"]
    assert {len(row) for row in table["data"]} == {len(table["columns"])}
    rows = {row[1]: dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert rows["t000"]["label"] == "R2M default"
    assert (rows["t000"]["rank"], rows["t000"]["reward/alpha"], rows["t000"]["kl"]) == (2, 0.5, 15.0)
    assert rows["rloo"]["reward/feedback"] is False
    assert rows["rloo"]["reward/alpha"] is None


def test_the_picture_is_of_the_confirmed_arms_and_there_is_none_of_nothing(made, tmp_path):
    path = tmp_path / "answer.png"
    report.picture(made().answer(), {}, path)
    assert not path.exists()
    m = swept(made)
    report.picture(m.answer(), m.views, path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine")
def test_a_browser_draws_every_plot_without_an_error_and_runs_no_text(made, tmp_path):
    m = swept(made, baselines={"RLOO": RLOO, "R2M default": {}, EVIL: {"reward.alpha": 0.25}})
    m.study.add_trial(
        optuna.trial.create_trial(
            params={"kind": EVIL}, distributions={"kind": CategoricalDistribution([EVIL, "b"])}, value=0.0
        )
    )
    (tmp_path / "report.html").write_text(page_of(m, text=EVIL), encoding="utf-8")
    drawn, page = drawn_plots(tmp_path / "report.html", tmp_path / "profile")
    assert drawn.keys() == set(PLOTS)
    assert all(drawn.values()), drawn
    assert "<title>made · R2M sweep</title>" in page
