"""Which texts are shown to a reader."""

import math

import pytest
from made_assessments import assessment, response

from r2m.results.arms import setups
from r2m.results.texts import ArmText, picks, texts_of


def row(response, proxy, gold, vanilla=0.0, prompt="p"):
    return {"prompt": prompt, "response": response, "proxy": proxy, "vanilla": vanilla, "gold": gold}


def text(response, gold, round=1, vanilla=0.0, gap=math.nan):
    return ArmText("run", round, "p", response, 0.0, vanilla, gold, gap)


def of(runs, assessments=None):
    ((setup,), _) = setups(runs.results(assessments))
    return texts_of(setup.arms[0])


def test_a_gap_is_proxy_less_gold_each_standardised_over_the_arms_texts(runs):
    runs.run("a", samples={1: [row("x", 0.0, 1.0), row("y", 2.0, 3.0)]})
    runs.run("b", seed=1, samples={1: [row("x", 0.0, 3.0), row("y", 2.0, 1.0)]})
    # Of proxies 0, 2, 0, 2: mean 1, deviation 1. Of golds 1, 3, 3, 1: mean 2, deviation 1.
    assert [(t.run, t.response, t.gap) for t in of(runs)] == [
        ("a", "x", 0.0), ("a", "y", 0.0), ("b", "x", -2.0), ("b", "y", 2.0),
    ]  # fmt: skip


def test_equal_scores_have_no_gap_and_missing_gold_has_none_to_show(runs):
    runs.run(
        "a", samples={1: [row("x", 1.0, 0.5), row("y", 1.0, 0.5), {"prompt": "p", "response": "z", "proxy": 3.0}]}
    )
    gaps = [t.gap for t in of(runs)]
    assert gaps[:2] == [0.0, 0.0]
    assert math.isnan(gaps[2])


def test_rows_of_an_assessment_are_texts_of_the_trained_policy(runs):
    runs.run("a", samples={5: [row("x", 1.0, 0.5)]})
    chat = [{"role": "user", "content": "hello"}]
    found = of(runs, {
        "a": assessment(response(chat, "y", proxy=2.0)), "other": assessment(response("p", "z", proxy=1.0, gold=1.0)),
    })  # fmt: skip
    assert [(t.round, t.response, t.prompt) for t in found] == [(5, "x", "p"), (None, "y", chat)]
    assert math.isnan(found[1].gold)


def test_a_response_that_a_run_repeats_counts_once_with_its_last_scores(runs):
    runs.run("a", samples={1: [row("x", 1.0, 0.5)], 2: [row("x", 3.0, 0.5), row("x", 4.0, 0.5, prompt="q")]})
    assert [(t.round, t.proxy) for t in of(runs)] == [(2, 3.0), (2, 4.0)]


def test_best_and_worst_by_gold_and_the_largest_gaps():
    golds = {"a": 3.0, "b": -1.0, "c": 2.0, "d": 0.0, "e": 1.0}
    texts = [text(name, gold, gap=-gold) for name, gold in golds.items()]
    chosen = {title: [t.response for t in found] for title, found in picks(texts, most=2).items()}
    assert chosen == {
        "Best by gold": ["a", "c"],
        "Worst by gold": ["b", "d"],
        "Liked in training, not by gold": ["b"],
    }


def test_later_rounds_come_first_among_equals_and_the_end_is_last_of_all():
    texts = [text("old", 1.0, 1), text("end", 1.0, None), text("new", 1.0, 9), text("bad", 0.0, 2)]
    assert [t.response for t in picks(texts)["Best by gold"]] == ["end", "new"]
    assert [t.response for t in picks(texts)["Worst by gold"]] == ["bad", "old"]


def test_what_several_runs_said_is_shown_once_in_its_latest_round():
    chosen = picks([text("same", 1.0, 3), text("same", 1.0, 7), text("same", 1.0, 5), text("other", 0.0, 1)])
    assert [(t.response, t.round) for found in chosen.values() for t in found] == [("same", 7), ("other", 1)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_text_is_both_best_and_worst(n):
    chosen = picks([text(str(i), float(i)) for i in range(n)])
    shown = [t.response for found in chosen.values() for t in found]
    assert sorted(shown) == [str(i) for i in range(n)]


def test_without_gold_the_frozen_reward_judges_and_there_is_no_gap():
    chosen = picks([text("a", math.nan, vanilla=1.0), text("b", math.nan, vanilla=2.0)])
    assert {title: [t.response for t in found] for title, found in chosen.items()} == {
        "Best by the vanilla reward": ["b"],
        "Worst by the vanilla reward": ["a"],
    }
    assert picks([]) == {}
