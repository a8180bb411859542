"""Win rates worked by hand, with judges that are programs; and the TL;DR set's stored GPT-4 verdicts.

Those are read from ../shared/data/tldr beside the repository, or from the folder that R2M_SHARED_DATA names.
"""

import gzip
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from r2m.endpoint.judge_prompts import TEMPLATES, ResponsePair
from r2m.evaluation.verdicts import StoredVerdicts, Verdict, VerdictStore, read_verdicts, verdict_key
from r2m.evaluation.win_rate import ScoreJudge, length_controlled, win_rate

SHARED = Path(os.environ.get("R2M_SHARED_DATA", Path(__file__).parents[3] / "../shared/data"))
TLDR = SHARED / "tldr" / "oai1b_judged.jsonl.gz"

by_length = ScoreJudge("longer", lambda prompts, responses: [len(r) for r in responses])


class Scripted:
    """A judge that answers from a table of (first, second)."""

    name = "scripted"

    def __init__(self, table: dict[tuple[str, str], float | None]) -> None:
        self.table, self.asked = table, []

    def __call__(self, batch: Sequence[ResponsePair]) -> list[float | None]:
        self.asked += batch
        return [self.table.get((c.first, c.second)) for c in batch]


def against(judge, *pairs: tuple[str, str], **options):
    ours, theirs = zip(*pairs, strict=True)
    return win_rate(judge, [f"p{i}" for i in range(len(pairs))], ours, theirs, **options)


def test_both_orders_are_averaged_and_what_is_no_win_is_stated():
    judge = Scripted(
        {
            ("a", "b"): 1.0, ("b", "a"): 0.0,  # a win
            ("c", "d"): 1.0, ("d", "c"): 1.0,  # whichever is first: 1/2
            ("e", "f"): 0.5, ("f", "e"): 0.5,  # the judge's tie
            ("g", "h"): 0.5, ("h", "g"): 1.0,  # 1/4
            ("i", "j"): 1.0, ("j", "i"): None,  # answered in one order only
        }
    )  # fmt: skip
    found = against(judge, *[("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"), ("i", "j"), ("k", "l"), ("=", "=")])
    assert found.wins_N == (1.0, 0.5, 0.5, 0.25, None, None, 0.5)
    assert found.rate.mean == pytest.approx((1 + 0.5 + 0.5 + 0.25 + 0.5) / 5)
    assert (found.ties, found.contradictory, found.identical) == (3, 1, 1)
    assert (found.unanswered, found.judge) == (2, "scripted")
    assert all(c.first != c.second for c in judge.asked)
    assert len(judge.asked) == 12


def test_a_judge_that_answers_nothing_gives_no_rate():
    found = against(Scripted({}), ("a", "b"), ("c", "d"))
    assert (found.rate, found.length_controlled, found.unanswered) == (None, None, 2)


def test_the_rate_has_the_bootstrap_interval_over_prompts():
    even = against(by_length, *[("long", "s"), ("s", "long")] * 200)
    assert even.rate.mean == 0.5
    low, high = even.rate.interval
    assert (0.5 - low, high - 0.5) == pytest.approx((1.96 * 0.5 / 20,) * 2, rel=0.1)
    assert against(by_length, *[("long", "s")] * 9).rate.interval == (1.0, 1.0)


def test_a_score_decides_ties_and_gives_no_answer_where_it_is_none():
    scores = {"good": 2.0, "fine": 2.0, "bad": -1.0, "broken": math.nan}
    judge = ScoreJudge("gold", lambda prompts, responses: [scores[r] for r in responses])
    batch = [
        ResponsePair("p", *pair) for pair in [("good", "bad"), ("bad", "fine"), ("good", "fine"), ("bad", "broken")]
    ]
    assert judge(batch) == [1.0, 0.0, 0.5, None]


def test_unequal_lists_and_answers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="2 prompts, 1 responses, 2 rivals"):
        win_rate(by_length, ["a", "b"], ["c"], ["d", "e"])
    with pytest.raises(ValueError, match="at least one"):
        win_rate(by_length, [], [], [])
    with pytest.raises(ValueError, match=r"an answer in 0 \.\. 1 or None is needed for each of 2"):
        against(Scripted({("a", "b"): 2.0, ("b", "a"): 0.0}), ("a", "b"))


class TestLengthControlled:
    def test_wins_that_are_of_length_alone_are_even_at_equal_lengths(self):
        """Two in three responses are the longer ones, and those win at sigmoid(1.5), the others at sigmoid(-1.5)."""
        ours, theirs = np.array([200, 200, 100] * 100), np.array([100, 100, 200] * 100)
        wins = np.where(ours > theirs, 0.8176, 0.1824)
        found = length_controlled(wins, ours, theirs)
        assert wins.mean() > 0.6
        assert found.rate == pytest.approx(0.5, abs=0.01)
        assert found.interval[0] <= found.rate <= found.interval[1]

    def test_quality_stays_where_lengths_say_nothing(self):
        wins = np.array([1.0, 1.0, 1.0, 0.0] * 50)
        found = length_controlled(wins, [10] * 100 + [20] * 100, [20] * 100 + [10] * 100)
        same = length_controlled(wins, [10] * 200, [10] * 200)
        assert same.rate == pytest.approx(0.75, abs=0.01)
        assert found.rate == pytest.approx(0.75, abs=0.01)
        assert found.interval == pytest.approx((0.69, 0.81), abs=0.015)  # 1.96 sqrt(0.75 · 0.25 / 200)

    def test_swapping_the_models_swaps_the_rate(self):
        rng = np.random.default_rng(0)
        wins, ours, theirs = rng.uniform(size=60), rng.integers(1, 99, 60), rng.integers(1, 99, 60)
        there, back = length_controlled(wins, ours, theirs), length_controlled(1 - wins, theirs, ours)
        assert there.rate == pytest.approx(1 - back.rate, abs=1e-6)

    def test_needs_five_prompts(self):
        assert length_controlled(np.ones(4), [1] * 4, [2] * 4) is None
        assert length_controlled(np.ones(5), [1] * 5, [2] * 5).rate > 0.9


class BothOrders:
    """One order's answer stands for the other order, too."""

    name = "gpt-4"

    def __init__(self, judge):
        self.judge = judge

    def __call__(self, batch):
        swapped = self.judge([ResponsePair(c.prompt, c.second, c.first) for c in batch])
        return [
            there if there is not None else None if other is None else 1 - other
            for there, other in zip(self.judge(batch), swapped, strict=True)
        ]


@pytest.mark.skipif(not TLDR.is_file(), reason=f"no TL;DR verdicts at {TLDR}")
def test_stored_verdicts_on_tldr(tmp_path):
    """GPT-4 preferred OpenAI's 1.3B model 640 times in 1,000, and 678 times said what the longer summary says."""
    with gzip.open(TLDR, "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["preferred"] is not None]
    assert len(rows) == 1000
    template = TEMPLATES["tldr"].text
    columns = [[row[key] for row in rows] for key in ("prompt", "model_summary", "reference_summary")]
    with VerdictStore(tmp_path / "verdicts.jsonl") as store:
        for row, prompt, ours, theirs in zip(rows, *columns, strict=True):
            won = float(row["preferred"] == "ours")
            model_first = row["shuffled_index"] == 0  # asked about one order only
            shown = ResponsePair(prompt, ours, theirs) if model_first else ResponsePair(prompt, theirs, ours)
            verdict = Verdict(won if model_first else 1 - won, row["explanation"])
            store.put(verdict_key("gpt-4", template, shown), "gpt-4", verdict)
    judge = StoredVerdicts("gpt-4", template, read_verdicts(tmp_path / "verdicts.jsonl"))
    assert win_rate(judge, *columns).rate is None  # nothing was asked in both orders
    found = win_rate(BothOrders(judge), *columns)
    assert found.rate.mean == pytest.approx(0.640)
    assert (found.unanswered, found.ties, found.contradictory) == (0, 0, 0)
    assert found.rate.interval == pytest.approx((0.61, 0.67), abs=0.005)
    longer = win_rate(by_length, *columns)
    assert longer.ties == 11  # of equal length, counted for the author here
    agrees = [(a == 1.0) == (b == 1.0) for a, b in zip(found.wins_N, longer.wins_N, strict=True)]
    assert np.mean(agrees) == pytest.approx(0.678)
    assert found.length_controlled.rate == pytest.approx(0.506, abs=0.001)  # most of the wins go with length
