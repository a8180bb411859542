"""The assessment of finished runs of tiny models, against the runs' own metrics and slow computations."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from r2m.config import Config, load
from r2m.errors import UserError
from r2m.evaluation.assess import assess, assess_policy
from r2m.evaluation.bench import open_bench, open_policy
from r2m.results.assessment import Assessment, read_assessment
from r2m.reward.loading import load_feedback_head
from r2m.runs.folder import ASSESSMENT
from r2m.runs.journal import Journal, read
from r2m.tasks.forum import gold, measures
from r2m.tasks.prompt import Prompt

ARMS = ("r2m", "rloo", "sft")
ROW = [
    "prompt", "response", "gold", "vanilla", "proxy", "kl", "tokens", "ended", "rival", "rival_gold", "rival_vanilla",
    "reference", "reference_gold",
]  # fmt: skip


@pytest.fixture(scope="module")
def assessed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage."""
    storage = tmp_path_factory.mktemp("assessed")
    shutil.copytree(finished, storage, dirs_exist_ok=True)
    return storage


@pytest.fixture(scope="module")
def trees(assessed: Path) -> dict[str, Assessment]:
    return {name: assess(str(assessed), name) for name in ARMS}


def floats(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from floats(value)
    elif isinstance(tree, float):
        yield tree


class TestTheTree:
    def test_it_is_what_is_on_file_and_finite(self, assessed: Path, trees: dict[str, Assessment]) -> None:
        for name in ARMS:
            assert read_assessment(assessed / "runs" / name) == trees[name]
            tree = json.loads((assessed / "runs" / name / ASSESSMENT).read_text())
            assert list(tree) == [
                "version", "run", "arm", "seed", "config_hash", "prompts", "eval_seed", "rows", "means", "win_rates",
                "reward_accuracy", "similarity", "over_training",
            ]  # fmt: skip
            assert (tree["run"], tree["seed"], tree["prompts"], len(tree["rows"])) == (name, 3, 12, 12)
            assert all(list(row) == ROW for row in tree["rows"])
            assert all(map(math.isfinite, floats(tree)))
        assert [trees[name].arm for name in ARMS] == ["R2M", "RLOO", "SFT"]

    def test_its_first_prompts_are_those_of_the_last_evaluation_in_training(
        self, assessed: Path, trees: dict[str, Assessment]
    ) -> None:
        names = {
            "gold": "gold", "vanilla": "vanilla", "proxy": "proxy", "kl": "kl_sequence", "tokens": "response_tokens",
        }  # fmt: skip
        for name in ARMS:
            metrics = read(assessed / "runs" / name / "journal.jsonl").rounds[4]
            for key, metric in names.items():
                mean = sum(getattr(row, key) for row in trees[name].rows[:6]) / 6
                assert mean == pytest.approx(metrics[f"eval/{metric}"], rel=1e-5, abs=1e-5), (name, key)

    def test_a_policy_that_was_not_trained_is_its_own_rival(self, trees: dict[str, Assessment]) -> None:
        tree = trees["sft"]
        for row in tree.rows:
            assert (row.response, row.gold, row.vanilla) == (row.rival, row.rival_gold, row.rival_vanilla)
            assert row.kl == pytest.approx(0, rel=1e-5, abs=1e-5)
        against_itself = [w for w in tree.win_rates if w.against == "sft"]
        assert [(w.rate, w.ties, w.identical) for w in against_itself] == [(0.5, 12, 12)] * 2

    def test_gold_and_the_task_s_measures_are_the_program_s(self, trees: dict[str, Assessment]) -> None:
        tree = trees["r2m"]
        prompts = [Prompt(text=row.prompt) for row in tree.rows]
        for text, score in (("response", "gold"), ("rival", "rival_gold"), ("reference", "reference_gold")):
            found = gold(prompts, [getattr(row, text) for row in tree.rows])
            assert [getattr(row, score) for row in tree.rows] == found
        assert {row.reference_gold for row in tree.rows} == {1.0}
        responses = [row.response for row in tree.rows]
        expected = measures(prompts, responses) | {"characters": sum(map(len, responses)) / 12}
        assert {key: tree.means[key] for key in expected} == pytest.approx(expected)

    def test_win_rates_by_gold_are_counts_of_the_rows(self, trees: dict[str, Assessment]) -> None:
        tree = trees["r2m"]
        assert [(w.judge, w.against) for w in tree.win_rates] == [
            ("gold", "sft"), ("gold", "reference"), ("vanilla", "sft"), ("vanilla", "reference"),
        ]  # fmt: skip
        for rate, rival in zip(tree.win_rates, ("rival_gold", "reference_gold"), strict=False):
            wins = [(row.gold > bar) + 0.5 * (row.gold == bar) for row in tree.rows for bar in [getattr(row, rival)]]
            assert rate.rate == pytest.approx(sum(wins) / 12)
            assert (rate.ties, rate.unanswered, rate.n) == (wins.count(0.5), 0, 12)

    def test_feedback_is_measured_where_there_is_a_head(self, trees: dict[str, Assessment]) -> None:
        for pairs in trees["rloo"].reward_accuracy:
            assert (pairs.before, pairs.after) == (None, None)
        assert all(row.proxy == row.vanilla for row in trees["rloo"].rows)
        assert any(row.proxy != row.vanilla for row in trees["r2m"].rows)
        for pairs in trees["r2m"].reward_accuracy:
            assert pairs.n + pairs.left_out == 24
            for found in (pairs.without, pairs.before, pairs.after):
                low, high = found.interval
                assert 0 <= low <= found.accuracy <= high <= 1


class TestTheFile:
    def test_it_is_read_again(self, assessed: Path, trees: dict[str, Assessment], tmp_path: Path) -> None:
        """Also where the models are gone."""
        shutil.copytree(assessed / "runs" / "rloo", tmp_path / "runs" / "rloo")
        shutil.rmtree(tmp_path / "runs" / "rloo" / "policy")
        assert assess(str(tmp_path), "rloo") == trees["rloo"]
        with pytest.raises(UserError, match=r"^RUN = 'rloo': its models are gone; "):
            assess(str(tmp_path), "rloo", refresh=True)

    def test_fewer_prompts_are_assessed_anew_and_leave_it(self, storage: str) -> None:
        path = Path(storage) / "runs" / "rloo" / ASSESSMENT
        few = assess(storage, "rloo", prompts=3)
        assert len(few.rows) == 3
        assert read_assessment(path.parent) == few
        again = assess(storage, "rloo", prompts=4)
        assert read_assessment(path.parent) == again
        assert [row.response for row in again.rows[:3]] == [row.response for row in few.rows]
        assert assess(storage, "rloo", prompts=2).prompts == 2
        assert read_assessment(path.parent) == again

    def test_that_of_another_configuration_or_a_broken_one_is_not_read(self, storage: str) -> None:
        path = Path(storage) / "runs" / "sft" / ASSESSMENT
        whole = json.loads(json.dumps(asdict(assess(storage, "sft", prompts=2))))
        others = [
            whole | {"config_hash": "other"}, whole | {"version": 0}, whole | {"rows": [1, 2]},
            whole | {"rows": whole["rows"][:1]}, whole | {"similarity": {"hacking": "0.5"}}, [],
        ]  # fmt: skip
        for text in (*map(json.dumps, others), "{", json.dumps(whole)[:-20]):
            path.write_text(text)
            there = read_assessment(path.parent)
            assert there is None or there.config_hash == "other"
            assert assess(storage, "sft", prompts=2).run == "sft"
            path.unlink()

    @pytest.mark.parametrize("prompts", [0, 13])
    def test_as_many_prompts_as_there_are(self, storage: str, prompts: int) -> None:
        with pytest.raises(UserError, match=rf"^--prompts {prompts}: 1 to 12, "):
            assess(storage, "rloo", prompts=prompts)

    def test_a_run_that_is_not_finished_says_what_it_is(self, storage: str) -> None:
        with Journal(Path(storage) / "runs" / "rloo" / "journal.jsonl") as journal:
            journal.event("stopped", step=4)
        with pytest.raises(UserError, match=r"^RUN = 'rloo': it is stopped; a finished run can be assessed$"):
            assess(storage, "rloo")


class TestTheBench:
    def test_its_head_is_the_one_that_the_run_drew(self, config: Config, storage: str) -> None:
        """That of a run which never trains its head is in its folder at the end."""
        first = open_bench(config, prompts=1).first_head
        drawn, trained = (
            load_feedback_head(Path(storage) / "runs" / name / "reward") for name in ("untrained", "r2m")
        )
        assert first is not None
        assert drawn is not None
        assert trained is not None
        for name, value in first.state_dict().items():
            assert torch.equal(value, drawn.state_dict()[name])
            assert name == "score.bias" or not torch.equal(value, trained.state_dict()[name])

    def test_every_policy_has_the_same_draws(self, config: Config, storage: str) -> None:
        bench = open_bench(config, prompts=3)
        same = bench.write(bench.supervised, bench.prompts, 2)
        copy = open_policy(config, str(config.policy.model))
        assert bench.write(copy, bench.prompts, 2).texts_NK == same.texts_NK
        cut = bench.write(copy, bench.prompts, 1, R=3)
        assert max(cut.t.lengths_NK.flatten().tolist()) == 3


class TestAnyPolicy:
    def test_a_model_is_assessed_like_a_run_s(
        self, assessed: Path, trees: dict[str, Assessment], config: Config, forum_models: tuple[str, str]
    ) -> None:
        tree = assess_policy(config, assessed / "runs" / "rloo" / "policy", prompts=4)
        assert (tree.run, tree.over_training) == (None, None)
        for mine, the_run_s in zip(tree.rows, trees["rloo"].rows, strict=False):
            assert mine.response == the_run_s.response
            assert mine.kl == pytest.approx(the_run_s.kl, rel=1e-5, abs=1e-5)

    def test_responses_are_cut(self, config: Config, forum_models: tuple[str, str]) -> None:
        tree = assess_policy(config, forum_models[0], prompts=4, max_tokens=2)
        assert max(row.tokens for row in tree.rows) == 2

    def test_without_gold_the_frozen_model_judges(self, text_recipe: Any, forum_models: tuple[str, str]) -> None:
        rows = [{"prompt": f"i feel {w} . tl;dr:", "completion": f" {w}"} for w in ("sad", "tired", "numb", "angry")]
        recipe = text_recipe(rows)
        tree = assess_policy(load(recipe), forum_models[0])
        assert {row.gold for row in tree.rows} == {None}
        assert [row.reference for row in tree.rows] == [" numb", " angry"]
        assert [(w.judge, w.against) for w in tree.win_rates] == [("vanilla", "sft"), ("vanilla", "reference")]
        assert (tree.similarity, tree.reward_accuracy, tree.means["gold"]) == (None, [], None)
        with_another = assess_policy(load(recipe), forum_models[0], judge=forum_models[1])
        assert [w.judge for w in with_another.win_rates] == ["vanilla", "vanilla", *[forum_models[1]] * 2]
        vanilla, other = with_another.win_rates[:2], with_another.win_rates[2:]
        assert [w.rate for w in vanilla] == [w.rate for w in other]  # the same model
