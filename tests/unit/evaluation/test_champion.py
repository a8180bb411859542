"""A policy against a champion, by whoever judges where there is no gold."""

from chat_server import ChatJudge, serving

from r2m.config import load
from r2m.evaluation.champion import rate_against
from r2m.training.loop import run_loop
from r2m.training.start import new_run

ROWS = [{"prompt": f"the post {i} is about a cat and a dog"} for i in range(12)]
FEW = ("task.held_out=6", "run.eval_every=0", "run.alarm_judgements=0", "reward.feedback=off", "algorithm.lr=1e-2")


class First(ChatJudge):
    @staticmethod
    def verdict(text):
        return "Preferred: A"


def finished(text_recipe, tmp_path, *settings):
    run = new_run(load(text_recipe(ROWS), [*FEW, *settings]), "run")
    run_loop(run.config, run.folder, run.models)
    return str(tmp_path / "storage"), run


def test_the_runs_own_judge_stands_in_for_gold(text_recipe, forum_models, tmp_path):
    storage, run = finished(text_recipe, tmp_path, f"run.judge={forum_models[1]}")
    wins = rate_against(storage, "run", run.folder / "policy", "itself", tmp_path / "v.jsonl")
    assert (wins.judge, wins.rate, wins.identical) == (forum_models[1], 0.5, 6)


def test_the_reward_model_that_was_maximised_does_not(text_recipe, forum_models, tmp_path):
    storage, _ = finished(text_recipe, tmp_path)
    assert rate_against(storage, "run", forum_models[0], "the first", tmp_path / "v.jsonl") is None


def test_a_language_model_is_asked_in_both_orders_and_never_twice(text_recipe, forum_models, tmp_path):
    with serving(First) as url:
        storage, _ = finished(text_recipe, tmp_path, f"run.judge_url={url}", "run.judge_model=judge")
        First.asked = 0
        wins = rate_against(storage, "run", forum_models[0], "the first", tmp_path / "v.jsonl")
        differing = 6 - wins.identical
        assert differing > 0
        assert (wins.rate, wins.n, First.asked) == (0.5, 6, 2 * differing)  # it contradicts itself: ties
        assert rate_against(storage, "run", forum_models[0], "the first", tmp_path / "v.jsonl") == wins
        assert First.asked == 2 * differing
