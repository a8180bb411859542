"""What is drawn, read back from the SVG: panels, labels, colours, and where the lines are."""

import math
import re

import pytest

from r2m.errors import UserError
from r2m.metrics import metric
from r2m.reports import curves
from r2m.reports.curves import PANELS, STYLE
from r2m.reports.style import COLOURS, WINNER, groups
from r2m.runs.journal import JournalView


def view(arm, seed, series, task="forum"):
    """`series`: metric -> a value each round."""
    estimator = {"advantage": "rloo" if arm == "R2M" else arm.lower(), "queries": 2, "responses": 4}
    config = {"reward": {"feedback": arm == "R2M"}, "algorithm": estimator, "run": {"seed": seed}}
    start = {"run_id": f"{arm}-{seed}", "task": task, "policy": "sft", "config": config}
    steps = range(max(map(len, series.values()), default=0))
    rounds = {s: {key: values[s] for key, values in series.items() if s < len(values)} for s in steps}
    return JournalView(start, rounds, {}, [])


def plot(runs, path):
    """`runs`: labelled; those of one label are an arm's seeds."""
    arms = {}
    for label, run in runs:
        arms.setdefault(label, []).append(run)
    curves.plot(groups((label, views[0].arm, views) for label, views in arms.items()), path)


def svg(runs, tmp_path, monkeypatch):
    """The file's text and, by colour, the curves as lists of (x, y) in points (y grows downwards)."""
    path = tmp_path / "curves.svg"
    monkeypatch.setitem(STYLE, "svg.fonttype", "none")  # text as text
    plot(runs, path)
    text = path.read_text()
    curves = {}
    for data, style in re.findall(r'<path d="([^"]+)"[^>]*clip-path[^>]*style="([^"]+)"', text):
        colour = re.search(r"stroke: (#\w+)", style).group(1)
        xy = [tuple(map(float, point.split())) for point in re.findall(r"[ML] ([-\d.]+ [-\d.]+)", data)]
        curves.setdefault(colour, []).append(xy)
    return text, curves


def colour(arm):
    return COLOURS[arm].lower()


def test_every_panel_has_its_title_unit_and_the_arms_in_their_colours(tmp_path, monkeypatch):
    series = {key: [0.0, 1.0, 4.0] for key in PANELS}
    runs = [("RLOO", view("RLOO", 3, series)), ("R2M", view("R2M", 5, series))]
    text, curves = svg(runs, tmp_path, monkeypatch)
    for key in PANELS:
        assert f">{metric(key).title}<" in text
        assert f">{metric(key).unit}<" in text
    assert ">forum, policy sft · seeds 3, 5<" in text
    assert text.count(">RLOO<") == text.count(">R2M<") == 1  # one legend
    assert len(curves[colour("RLOO")]) == len(curves[colour("R2M")]) == len(PANELS)
    for (x0, y0), (x1, y1), (x2, y2) in curves[colour("R2M")]:
        assert x2 - x1 == pytest.approx(x1 - x0)
        assert y0 - y2 == pytest.approx(4 * (y0 - y1), rel=1e-3)


def test_panels_without_data_are_left_out(tmp_path, monkeypatch):
    text, curves = svg([("R2M", view("R2M", 0, {"kl/sequence": [0.0, 1.0]}))], tmp_path, monkeypatch)
    assert [key for key in PANELS if f">{metric(key).title}<" in text] == ["kl/sequence"]
    assert ">forum, policy sft · seed 0<" in text
    assert len(curves[colour("R2M")]) == 1


def test_repeats_are_drawn_with_their_mean_over_the_rounds_that_all_have(tmp_path, monkeypatch):
    values = ([0.0, 0.0, 0.0, 9.0], [2.0, 4.0, 8.0])
    runs = [("R2M", view("R2M", seed, {"reward/gold": v})) for seed, v in enumerate(values)]
    text, curves = svg(runs, tmp_path, monkeypatch)
    assert ">R2M (mean of 2)<" in text
    low, high, mean = curves[colour("R2M")]
    assert (len(low), len(high), len(mean)) == (4, 3, 3)
    for (x, y), (x_low, y_low), (x_high, y_high) in zip(mean, low, high, strict=False):
        assert x == x_low == x_high
        assert y == pytest.approx((y_low + y_high) / 2, abs=1e-3)


def test_arms_are_told_apart_by_colour_then_by_dashes_and_a_winner_is_green(tmp_path, monkeypatch):
    series = {"reward/gold": [0.0, 1.0]}
    arms = [(f"R2M, Ω = {i}", view("R2M", i, series)) for i in range(6)]
    made = groups((label, run.arm, [run]) for label, run in arms)
    assert made[0].colour == COLOURS["R2M"]
    assert len({(group.colour, group.dash) for group in made}) == 6
    assert [group.dash for group in made] == ["solid"] * 5 + ["dash"]
    text, _ = svg(arms, tmp_path, monkeypatch)
    assert text.count("stroke-dasharray") > 0
    first, rloo, r2m = groups([("t1", "R2M", []), ("RLOO", "RLOO", []), ("R2M", "R2M", [])], winner=True)
    assert (first.colour, rloo.colour, r2m.colour) == (WINNER, COLOURS["RLOO"], COLOURS["R2M"])


def test_nan_leaves_a_gap(tmp_path, monkeypatch):
    values = [0.0, 1.0, math.nan, 1.0, 0.0]
    runs = [("R2M", view("R2M", 0, {"reward/gold_correlation": values}))]
    _, curves = svg(runs, tmp_path, monkeypatch)
    assert [len(curve) for curve in curves[colour("R2M")]] == [4]


def test_the_same_curves_make_the_same_file_and_png_is_one(tmp_path):
    runs = [("R2M", view("R2M", 0, {"reward/gold": [0.0, 1.0]}))]
    for name in ("a.svg", "b.svg", "c.png"):
        plot(runs, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("runs", [[], [("R2M", view("R2M", 0, {})), ("x", view("R2M", 1, {"a/b": [1.0]}))]])
def test_nothing_to_draw_is_an_error(tmp_path, runs):
    with pytest.raises(UserError, match="no rounds with any of reward/proxy"):
        plot(runs, tmp_path / "curves.png")


def test_the_alarm_is_marked_on_the_curve_of_the_run_that_raised_it_and_named_once(tmp_path, monkeypatch):
    quiet, loud = (view("RLOO", seed, {"reward/gold": [0.0, 1.0, 4.0]}) for seed in (1, 2))
    loud.events.append({"kind": "event", "name": "alarm", "step": 1})
    assert [
        (at.run, at.step, at.x, at.y) for at in groups([("a", "RLOO", [quiet, loud])])[0].alarms("reward/gold")
    ] == [("RLOO-2", 1, 1 * 2 * 4, 1.0)]
    without, _ = svg([("RLOO", quiet), ("RLOO", view("RLOO", 2, {"reward/gold": [0.0]}))], tmp_path, monkeypatch)
    text, _ = svg([("RLOO", quiet), ("RLOO", loud)], tmp_path, monkeypatch)
    assert (text.count(">alarm<"), without.count(">alarm<")) == (1, 0)
