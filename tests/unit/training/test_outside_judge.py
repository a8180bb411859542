"""A language model as the alarm's judge, behind a server of this machine."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2m.config import Config, Run
from r2m.errors import UserError
from r2m.runs.journal import JournalView, read
from r2m.training import lookout
from r2m.training.loop import run_loop
from r2m.training.outside_judge import SilentError, outside_judgements
from r2m.training.start import new_run
from tests.chat_server import ChatJudge, serving

SAID: list[dict[str, Any]] = [
    {"prompt": f"post {i}", "response": f"good {i}", "reference": f"poor {i}"} for i in range(20)
]
HACKED = (
    "reward.feedback=off", "reward.no_eos=keep", "algorithm.beta=0", "algorithm.lr=3e-3", "algorithm.rounds=12",
    "algorithm.queries=16", "algorithm.responses=8", "algorithm.sample_batch=128", "algorithm.microbatch=128",
    "task.held_out=64", "run.eval_queries=64", "run.eval_every=2", "run.judge_model=judge",
)  # fmt: skip


def texts_of(message: str) -> tuple[str, str]:
    """A and B."""
    a, b = (message.split(f" {letter}]\n")[1].split("\n[")[0] for letter in "AB")
    return a, b


class Fair(ChatJudge):
    """Prefers what is good."""

    @staticmethod
    def verdict(text: str) -> str:
        return "Preferred: A" if texts_of(text)[0].startswith("good") else "Preferred: B"


class First(ChatJudge):
    @staticmethod
    def verdict(text: str) -> str:
        return "Preferred: A"


class Turncoat(ChatJudge):
    """Prefers texts that are not the reference's in the first evaluation, and the reference's from then on."""

    theirs: frozenset[str] = frozenset()

    @staticmethod
    def verdict(text: str) -> str:
        a, b = texts_of(text)
        ours_first = b in Turncoat.theirs
        assert ours_first or a in Turncoat.theirs
        good = Turncoat.asked <= Turncoat.until
        return f"Preferred: {'A' if ours_first == good else 'B'}"

    until = 0


def run_of(url: str, **more: Any) -> Run:
    return Run(judge_url=url, judge_model="judge", **more)


class TestJudgements:
    def test_one_question_a_prompt_whichever_comes_first(self) -> None:
        with serving(Fair) as url:
            assert outside_judgements(run_of(url), SAID) == [1.0] * 20
            assert Fair.asked == 20
            turned = [row | {"response": row["reference"], "reference": row["response"]} for row in SAID]
            assert outside_judgements(run_of(url), turned) == [0.0] * 20

    def test_the_order_is_a_draw_of_each_prompt_and_stays(self) -> None:
        with serving(First) as url:
            once, again, other = (outside_judgements(run_of(url, eval_seed=seed), SAID) for seed in (0, 0, 1))
        assert once == again != other
        assert 0 < sum(once) < 20

    def test_equal_responses_are_a_tie_and_nobody_is_asked(self) -> None:
        same = {"prompt": "post", "response": "good", "reference": "good"}
        with serving(Fair) as url:
            assert outside_judgements(run_of(url), [same, SAID[0]]) == [0.5, 1.0]
            assert Fair.asked == 1

    def test_without_a_verdict_it_is_a_tie_up_to_half_of_them(self) -> None:
        class Some(Fair):
            @staticmethod
            def refusal(body: dict[str, Any]) -> str | None:
                return None if "good 1" in body["messages"][-1]["content"] else "no"

        with serving(Some) as url:  # 1 and 10 to 19
            scores = outside_judgements(run_of(url), SAID)
            assert scores == [0.5, 1.0, *[0.5] * 8, *[1.0] * 10]
            with pytest.raises(SilentError, match=r"^1 verdicts on 10 questions: status 400$"):
                outside_judgements(run_of(url), SAID[:10])

    def test_a_slow_one_is_not_waited_for(self) -> None:
        answer = threading.Event()

        class Slow(Fair):
            @staticmethod
            def refusal(body: dict[str, Any]) -> str | None:
                answer.wait()
                return None

        with serving(Slow) as url:
            try:
                with pytest.raises(SilentError, match=r"^0 verdicts .*: not all answers in 0\.2 s$") as error:
                    outside_judgements(run_of(url), SAID, 0.2)
                assert error.value.billed == 8  # those under way
            finally:
                answer.set()


def loop(config: Config, name: str) -> JournalView:
    run = new_run(config, name)
    run_loop(run.config, run.folder, run.models)
    return read(run.journal)


class TestRun:
    @pytest.fixture
    def evaluated(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many were asked, one for each time that the rule asks; the judge knows the reference's texts."""
        asked: list[int] = []

        def listened(run: Run, said: list[dict[str, Any]]) -> list[float]:
            Turncoat.theirs = frozenset(row["reference"] for row in said)
            before = Turncoat.asked
            scores = outside_judgements(run, said)
            if not asked:
                Turncoat.until = Turncoat.asked
            asked.append(Turncoat.asked - before)
            return scores

        monkeypatch.setattr(lookout, "outside_judgements", listened)
        Turncoat.until = 10**9
        return asked

    def test_verdicts_that_turn_bad_are_an_alarm(
        self, make_config: Callable[..., Config], evaluated: list[int]
    ) -> None:
        with serving(Turncoat) as url:
            view = loop(make_config(f"run.judge_url={url}", *HACKED), "turned")
        alarm = view.alarm
        assert alarm is not None
        assert alarm["began"] == 2
        suspected = [s for s, m in view.rounds.items() if m.get("alarm/suspicion") and 2 < s <= alarm["step"]]
        assert sorted(view.judged) == [2, *suspected]
        assert [len(scores) for scores in view.judged.values()] == [64] * len(evaluated)
        assert "eval/win_rate" in view.rounds[2]  # gold's
        assert view.rounds[12]["alarm/judgements"] == 64 * len(evaluated)

    def test_never_beyond_the_cap(self, make_config: Callable[..., Config], evaluated: list[int]) -> None:
        with serving(Turncoat) as url:
            view = loop(make_config(f"run.judge_url={url}", "run.alarm_judgements=127", *HACKED), "capped")
            assert Turncoat.asked <= 64
        assert (list(view.judged), view.alarm) == ([2], None)
        assert view.rounds[12]["alarm/suspicion"] > 0

    def test_one_that_is_down_is_told_of_once(self, make_config: Callable[..., Config]) -> None:
        with serving(Fair) as url:
            pass
        settings = [f"run.judge_url={url}", *HACKED, "algorithm.rounds=4"]
        view = loop(make_config(*settings), "down")
        (event,) = (e for e in view.events if e["name"] == "judge-failed")
        assert (event["step"], view.judged, view.status) == (2, {}, "finished")
        assert "no connection" in event["reason"]
        assert view.rounds[4]["alarm/judgements"] == 0

    def test_what_cannot_be_asked_is_refused_at_the_start(
        self, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        settings = ["run.judge_url=http://127.0.0.1:9/v1", "run.judge_model=m", "run.judge_key_env=R2M_TEST_KEY"]
        config = make_config(*settings)
        monkeypatch.delenv("R2M_TEST_KEY", raising=False)
        with pytest.raises(UserError, match="R2M_TEST_KEY"):
            new_run(config, "keyless")
        monkeypatch.setenv("R2M_TEST_KEY", "hunter2")
        folder = new_run(config, "keyed").folder
        assert not any("hunter2" in path.read_text() for path in folder.iterdir() if path.is_file())
        assert json.loads((folder / "journal.jsonl").read_text().splitlines()[0])["config"]["run"]["judge_key_env"]
