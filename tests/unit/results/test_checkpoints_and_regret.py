"""Choosing a checkpoint: what a table of scores says, and what a choice costs in gold, by hand."""

import json
import math
import re

from r2m.results.checkpoints import TABLE, CheckpointScores, ScoredCheckpoint, read_scores
from r2m.results.regret import gold_regret


def table(**scores):
    """`r3=[...]`: the judge's scores of round 3."""
    rows = [ScoredCheckpoint(int(key[1:]), of, 1.0, 2.0, 3.0) for key, of in scores.items()]
    return CheckpointScores("run", "hash", "gold", 6, 0, rows)


def test_the_best_is_told_from_the_last_by_pairs_of_prompts_and_the_choice_is_paid_for():
    known = table(r1=[0.5] * 6, r2=[1.0] * 6, r3=[0.25] * 6)
    assert known.best.step == 2
    loss = known.gain(known.rows[0], known.best)
    assert (loss.mean, loss.interval, loss.n) == (-0.5, (-0.5, -0.5), 6)
    found = known.over_last()
    assert (found.mean, found.n) == (0.75, 6)
    assert found.p == 2 * 2 / 2**6  # all of six signs, for a choice among three
    assert found.finding == "better"
    head, told, mind = known.verdict()
    assert re.search(r"best of 3.* by gold.* round 2\.", head)
    assert re.search(r"Round 2 is better than round 3, the last,.*0\.75.*p = 0\.0625, 6 prompts", told)
    assert "multiplied by 2" in mind


def test_among_many_the_same_difference_is_not_told_apart():
    """Six prompts can show 2 / 2^6 at the least: of four checkpoints three times that, which is above 1/16."""
    known = table(r1=[0.5] * 6, r2=[1.0] * 6, r3=[0.5] * 6, r4=[0.25] * 6)
    assert known.over_last().p == 3 * 2 / 2**6
    assert known.over_last().finding == "not distinguishable"
    assert "not distinguishable from round 4" in known.verdict()[1]


def test_prompts_without_an_answer_are_in_no_pair_and_the_earliest_of_equals_is_best():
    known = table(r1=[1.0, None, 0.0], r2=[0.5, 0.5, 0.5], r3=[None, 0.25, 0.0])
    assert [row.score for row in known.rows] == [0.5, 0.5, 0.125]
    assert known.best.step == 1
    assert known.over_last().n == 1  # the third prompt
    assert known.gain(known.rows[1], known.best).mean == 0.0  # (0.5 - 1 + 0.5 - 0) / 2
    apart = table(r1=[1.0, None], r2=[None, 0.5])
    assert apart.over_last() is None
    assert "No prompt is judged in both" in apart.verdict()[1]


def test_the_last_the_only_one_and_none_that_was_judged_are_said():
    assert "The last checkpoint, of round 2, is the best of 2" in table(r1=[0.0] * 6, r2=[1.0] * 6).verdict()[0]
    assert "One checkpoint was kept, of round 5" in table(r5=[1.0]).verdict()[0]
    silent = table(r1=[None], r2=[None])
    assert (silent.best, silent.over_last()) == (None, None)
    assert "judged no response" in silent.verdict()[0]


def test_it_is_on_file_as_strict_json_and_read_back(tmp_path):
    known = table(r1=[1.0, None], r2=[0.5, 0.0])
    known.write(tmp_path)
    tree = json.loads((tmp_path / TABLE).read_text())
    assert (tree["best"], tree["over_last"]["mean"], tree["verdict"]) == (1, 0.5, known.verdict())
    assert read_scores(tmp_path) == known
    (tmp_path / TABLE).write_text("{")
    assert read_scores(tmp_path) is None


def test_regret_is_the_best_gold_less_that_of_the_chosen():
    gold = {1: 0.25, 2: 1.0, 3: 0.75, 4: 0.0}
    assert gold_regret(gold, {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.1}) == 0.25
    assert gold_regret(gold, {step: step for step in gold}) == 1.0  # the last
    assert gold_regret(gold, {2: 0.9, 4: 0.9}) == 0.0  # the earliest of equals
    assert gold_regret(gold, {1: 0.9, 4: 0.1, 9: 1.0}) == 0.0  # of those alone that have a signal and gold


def test_regret_leaves_out_what_is_no_number():
    assert gold_regret({1: 0.5, 2: math.nan, 3: 1.0}, {1: 1.0, 2: 9.0, 3: math.nan}) == 0.0
    assert math.isnan(gold_regret({1: 0.5}, {1: math.nan}))
    assert math.isnan(gold_regret({}, {1: 1.0}))
