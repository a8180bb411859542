"""Original preference pairs as trajectories, and which of them anchor a head."""

from collections.abc import Callable
from pathlib import Path

import pytest

from r2m.config import load
from r2m.errors import UserError
from r2m.reward.anchor import Anchor
from r2m.tasks.pairs import original_pairs
from r2m.tasks.prompt import Prompt
from r2m.training.preflight import plan_for
from r2m.training.trainer import Trainer
from r2m.workers import Workers

MakeTrainer = Callable[..., Trainer]
TextRecipe = Callable[..., str]
ASKED = Prompt(text="my mom sold my tv . tl;dr:")


def anchor(trainer: Trainer, pairs: list[tuple[Prompt, str, str]], in_round: int = 1) -> Anchor:
    return Anchor(
        pairs, trainer.tokenizer, trainer.scorer, filler=0, in_round=in_round, prompt_tokens=8, response_tokens=4,
        seed=0, workers=Workers(),
    )  # fmt: skip


def test_a_pair_is_a_query_with_two_responses_that_have_ended(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    (query,), t = anchor(trainer, [(ASKED, " mom sold tv", " sad")]).of_round(1, "cpu")
    assert query.prompt == ASKED
    rows = zip(t.response_ids_NKR[0], t.response_mask_NKR[0], strict=True)
    decoded = [trainer.tokenizer.decode(ids[mask]) for ids, mask in rows]
    assert decoded == [" mom sold tv[EOS]", " sad[EOS]"]
    assert t.lengths_NK.tolist() == [[4, 2]]
    assert t.ended_NK.all()
    assert t.prompt_ids_NP[0].tolist() == query.ids


def test_what_is_longer_than_the_rounds_own_is_left_out(make_trainer: MakeTrainer) -> None:
    long = [(Prompt(text="mom " * 9), " sad", " tv"), (ASKED, " sad" * 4, " tv"), (ASKED, " tv", " sad" * 4)]
    kept = anchor(make_trainer(), [*long, (ASKED, " sad" * 3, " tv")])
    assert len(kept) == 1
    with pytest.raises(UserError, match=r"of 4 pairs 1 are no longer than the run's prompts \(8 tokens\)"):
        anchor(make_trainer(), [*long, (ASKED, " sad" * 3, " tv")], in_round=2)


def test_those_kept_beside_the_reward_model_come_back_as_they_were(make_trainer: MakeTrainer) -> None:
    """Seven of eight fit into responses of eight tokens, and a round takes four."""
    trainer = make_trainer("reward.anchor=0.5")
    found = original_pairs(trainer.config, trainer.models[1])
    assert [(chosen, rejected) for _, chosen, rejected in found] == [(" my tv", " sad" * n) for n in range(1, 9)]
    assert len(trainer.anchor) == 7
    asked = [[str(query.prompt.text) for query in trainer.anchor.of_round(step, "cpu")[0]] for step in (1, 2, 3)]
    in_a_row = [text for of_round in asked for text in of_round]
    assert len(set(in_a_row[:7])) == 7
    assert in_a_row[7:12] == in_a_row[:5]


def test_what_reshapes_the_rounds_scores_does_not_touch_original_pairs(make_trainer: MakeTrainer) -> None:
    plain, shaped = (
        next(make_trainer("reward.anchor=0.5", "reward.labels=2", *more).rounds(1)).metrics
        for more in ((), ("reward.shaping=par",))
    )
    assert plain["reward/proxy"] != shaped["reward/proxy"]
    assert plain["head/anchor"] == pytest.approx(shaped["head/anchor"], abs=1e-3)  # two policies a step apart


def test_a_text_task_names_its_data_and_puts_prompts_as_its_own(text_recipe: TextRecipe, tmp_path: Path) -> None:
    recipe = text_recipe([{"prompt": "mom"}] * 8, instruction="say it")
    with pytest.raises(UserError, match=r"reward.anchor = 0.5: name the pairs that reward.model was trained on by"):
        load(recipe, ["reward.anchor=0.5"])
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "dad", "chosen": " sad", "rejected": " tv"}\n')
    config = load(recipe, ["reward.anchor=0.5", f"reward.anchor_data={data}"])
    assert original_pairs(config, "nowhere") == [(Prompt(text="say it\n\ndad"), " sad", " tv")]


def test_a_text_task_is_anchored_and_labelled(
    text_recipe: TextRecipe, forum_models: tuple[str, str], tmp_path: Path
) -> None:
    """A head taught by a judge's labels and by pairs that are given as data, and the run's plan of it."""
    recipe = text_recipe([{"prompt": "my mom sold my tv . tl;dr:"}] * 8)
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "my dad . tl;dr:", "chosen": " sad", "rejected": " tv"}\n' * 4)
    judge = f"run.judge={forum_models[1]}"
    rivals = ["reward.labels=2", judge, "reward.anchor=0.5", f"reward.anchor_data={data}", "run.eval_queries=2"]
    config = load(recipe, rivals)
    assert plan_for(config).notes[-1].startswith("4 judgements by run.judge = ")
    rounds = list(Trainer(config, forum_models, Workers()).rounds(1))
    assert [r.metrics["label/judgements"] for r in rounds] == [2, 4]
    assert all(r.metrics["head/anchor"] > 0 for r in rounds)


def test_a_reward_model_without_its_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reward.anchor = 0.5: no preference_pairs.jsonl beside reward model"):
        original_pairs(load("forum", ["reward.anchor=0.5"]), str(tmp_path))


@pytest.mark.parametrize("other", ["reward.feedback=off", "reward.train_head=off", "reward.hidden=noise"])
def test_an_anchor_of_nothing_is_refused(other: str) -> None:
    with pytest.raises(UserError, match=r"reward: anchor = 0\.5 is a share of the loss of a head that reads"):
        load("forum", ["reward.anchor=0.5", other])
