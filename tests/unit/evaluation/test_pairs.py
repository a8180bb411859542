"""Accuracy of reward models on preference pairs, against one sequence at a time.

Real pairs are read from ../shared/data beside the repository, or from the folder that R2M_SHARED_DATA names.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from made_tokenizers import CHATML, TEMPLATES, chat_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from r2m.config import Config, load
from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.evaluation.bench import AssessedPolicy, Bench, encoded, open_bench, open_policy
from r2m.evaluation.judging import named_judge
from r2m.evaluation.pairs import CHUNK, Pair, _forum_pairs, accuracy, file_pairs, reward_accuracy
from r2m.models.saving import save_model
from r2m.policy.queries import response_texts
from r2m.results.statistics import wilson_interval
from r2m.reward.inputs import response_ids
from r2m.reward.loading import load_feedback_head
from r2m.reward.scoring import RewardEmbedder
from r2m.tasks.columns import preference_pairs
from r2m.tasks.files import read_rows
from r2m.tasks.forum import gold
from r2m.tasks.prompt import as_judges_read
from r2m.training.held_out import frozen_judge

SHARED = Path(os.environ.get("R2M_SHARED_DATA", Path(__file__).parents[3] / "../shared/data"))


@torch.no_grad()
def slow_accuracy(bench: Bench, policy: AssessedPolicy, head: FeedbackHead | None, pairs: Sequence[Pair]) -> float:
    """One response at a time, by Hugging Face's own forward; ω = Ω."""

    def score(prompt, text: str) -> float:
        ids = torch.tensor([response_ids(bench.reward_tokenizer, prompt, text)])
        H_1D = bench.reward_model.embed(ids, torch.ones_like(ids, dtype=torch.bool))
        if head is None:
            return float(bench.reward_model.phi(H_1D))
        own = torch.tensor([response_ids(policy.tokenizer, prompt, text)])
        h_1SD = policy.model(own, output_hidden_states=True).hidden_states[-1][:, :-1]
        mask = torch.ones(h_1SD.shape[:2], dtype=torch.bool)
        return float(head(H_1D, h_1SD, mask, bench.config.reward.omega_min))

    return sum(score(p, chosen) > score(p, rejected) for p, chosen, rejected in pairs) / len(pairs)


def pairs_file(path: Path, rows: Sequence[tuple[str, str, str]]) -> str:
    keys = ("prompt", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Thirty pairs that fit and two that do not."""
    words = ["mom", "sold", "my", "tv", "sad", "help"]
    rows = [
        (f"i feel {words[i % 6]} . tl;dr:", f" {words[i % 6]}" * (1 + i % 3), f" {words[(i * i + 2) % 6]}")
        for i in range(30)
    ]
    return pairs_file(tmp_path / "pairs.jsonl", [*rows, ("tl;dr:", " mom" * 70, " mom"), (" my" * 70, " a", " b")])


def test_the_three_conditions_are_what_one_sequence_at_a_time_gives(
    config: Config, storage: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: the head as drawn and the supervised policy's states; after: the trained of both."""
    monkeypatch.setattr("r2m.evaluation.pairs.CHUNK", 7)  # so that there are several, and pairs across them
    folder = Path(storage) / "runs" / "r2m"
    bench, trained = open_bench(config, prompts=2), open_policy(config, folder / "policy")
    head = load_feedback_head(folder / "reward")
    assert head is not None
    assert bench.first_head is not None
    with torch.no_grad():  # so that feedback matters
        bench.first_head.output.weight *= 1000
        head.output.weight *= 1000
    extra = file_pairs(bench, trained, file)
    (_, pairs, left_out), (tree,) = extra[0], reward_accuracy(bench, trained, head, extra)[2:]
    assert (tree.pairs, tree.n, tree.left_out, len(pairs)) == (file, 30, 2, 30)
    why = {"longer than the models' contexts": {"rows": 2, "first": "line 31"}}
    assert tree.left_out_why == left_out == why
    assert tree.unknown == 0
    found = [cell.accuracy for cell in (tree.without, tree.before, tree.after)]
    expected = [
        slow_accuracy(bench, bench.supervised, None, pairs),
        slow_accuracy(bench, bench.supervised, bench.first_head, pairs),
        slow_accuracy(bench, trained, head, pairs),
    ]
    assert found == pytest.approx(expected)
    assert len(set(found)) == 3, "the three conditions differ, or the test says nothing"


def test_the_forum_s_own_pairs_are_by_gold_without_ties(config: Config, storage: str) -> None:
    bench = open_bench(config)
    trained = open_policy(config, Path(storage) / "runs" / "r2m" / "policy")
    written = []
    for policy in (bench.supervised, trained):
        pairs, ties = _forum_pairs(bench, policy)
        assert len(pairs) + (ties["gold is equal"]["rows"] if ties else 0) == 2 * 12
        for prompt, chosen, rejected in pairs:
            better, worse = gold([prompt] * 2, [chosen, rejected])
            assert better > worse
        assert _forum_pairs(bench, policy)[0] == pairs
        written.append(pairs)
    assert written[0] != written[1]


def test_none_that_fits_is_refused(config: Config, tmp_path: Path) -> None:
    bench = open_bench(config, prompts=1)
    too_long = pairs_file(tmp_path / "p.jsonl", [("tl;dr:", " mom" * 70, " mom")])
    with pytest.raises(
        UserError,
        match=r"^--pairs '.*p.jsonl': none of its pairs can be used; .* 1: longer than the models' contexts",
    ):
        file_pairs(bench, bench.supervised, too_long)
    with pytest.raises(UserError, match=r"^--pairs = 'nowhere.jsonl': no such file$"):
        file_pairs(bench, bench.supervised, "nowhere.jsonl")


def byte_models(folder: Path, template: str | None = None) -> list[str]:
    """A policy and a classifier of width 16 that read bytes, as settings of a recipe."""
    tokenizer = chat_tokenizer(template)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 1024, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    save_model(folder / "policy", LlamaForCausalLM(LlamaConfig(**shape)), tokenizer)
    save_model(folder / "reward", LlamaForSequenceClassification(LlamaConfig(**shape, num_labels=1)), tokenizer)
    return [f"policy.model={folder / 'policy'}", f"reward.model={folder / 'reward'}"]


@pytest.mark.parametrize("family", ["gemma", "qwen3", "deepseek-r1", "mistral"])
def test_the_loop_pairs_and_judges_give_a_conversation_one_score(text_recipe, tmp_path: Path, family: str) -> None:
    """That of the classifier itself on the whole conversation."""
    template = TEMPLATES[family]
    recipe = text_recipe([{"prompt": f"What is {i}?"} for i in range(4)], as_chat=True)
    bench = open_bench(load(recipe, byte_models(tmp_path, template)))
    tokenizer, prompts, texts = bench.reward_tokenizer, bench.prompts, ["It is 4.", "mom\n\nsold"]
    whole = [
        tokenizer.apply_chat_template(
            [*(prompt.messages or ()), {"role": "assistant", "content": text}], return_dict=False
        )
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    with torch.no_grad():
        own = [float(bench.reward_model.model(input_ids=torch.tensor([ids])).logits) for ids in whole]
    queries, t = encoded(bench.supervised, prompts, texts)
    found = {
        "loop": bench.measure(bench.supervised, queries, t, None, kl=False)["eval/vanilla"],
        "pairs": bench.measure(bench.supervised, queries, t, None, kl=False, texts_N=texts)["eval/vanilla"],
        "vanilla": named_judge(bench, "vanilla").scores([as_judges_read(p) for p in prompts], texts),
        "--judge": named_judge(bench, str(tmp_path / "reward")).scores([as_judges_read(p) for p in prompts], texts),
    }
    scorer = RewardEmbedder(bench.reward_model, tokenizer, bench.supervised.tokenizer, 4)
    found["run.judge"] = frozen_judge(scorer)(queries, t).flatten().tolist()
    assert found == {path: pytest.approx(own, rel=1e-5, abs=1e-5) for path in found}
    assert response_texts(bench.supervised.tokenizer, queries, t) == texts


def test_a_judge_whose_template_shows_no_answer_is_refused(text_recipe, tmp_path: Path) -> None:
    recipe = text_recipe([{"prompt": f"What is {i}?"} for i in range(4)], as_chat=True)
    bench = open_bench(load(recipe, byte_models(tmp_path, CHATML)))
    (tmp_path / "reward" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(UserError, match="does not show the text of an assistant's answer"):
        named_judge(bench, str(tmp_path / "reward"))


@pytest.mark.parametrize("shape", [{}, {"instruction": "Sum up."}, {"instruction": "Sum up.", "as_chat": True}])
def test_plain_and_conversational_pairs_score_alike(text_recipe, tmp_path: Path, shape: dict) -> None:
    """The same pairs, in the form that the task's own prompts have."""
    words = ["mom", "sold", "my", "tv", "sad", "help"]
    rows = [
        {"prompt": f"{words[i % 6]} {words[i % 5]}", "chosen": f"{words[(i * i + 1) % 6]} {i}", "rejected": "no"}
        for i in range(40)
    ]
    said = [
        {key: [{"role": "user" if key == "prompt" else "assistant", "content": text}] for key, text in row.items()}
        for row in rows
    ]
    found = []
    recipe = text_recipe([{"prompt": f"What is {i}?"} for i in range(4)], **shape)
    bench = open_bench(load(recipe, byte_models(tmp_path, CHATML)))
    for name, data in (("plain", rows), ("said", said)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in data))
        ((_, pairs, _),) = extra = file_pairs(bench, bench.supervised, str(file))
        (tree,) = reward_accuracy(bench, bench.supervised, None, extra)
        found.append((tree.without, pairs))
    assert found[0] == found[1]
    first = found[0][1][0][0]
    assert (first.messages is not None) == shape.get("as_chat", False)
    text = first.text if first.messages is None else first.messages[0]["content"]
    assert text == ("Sum up.\n\nmom mom" if shape else "mom mom")


def test_a_longer_conversation_has_the_instruction_in_front(text_recipe, tmp_path: Path) -> None:
    recipe = text_recipe([{"prompt": f"What is {i}?"} for i in range(4)], instruction="Sum up.")
    bench = open_bench(load(recipe, byte_models(tmp_path, CHATML)))
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    file = tmp_path / "turns.jsonl"
    row = {"prompt": turns} | {k: [{"role": "assistant", "content": k}] for k in ("chosen", "rejected")}
    file.write_text(json.dumps(row) + "\n")
    ((_, ((prompt, *_),), _),) = file_pairs(bench, bench.supervised, str(file))
    assert prompt.messages == (turns[0], {"role": "user", "content": "Sum up.\n\nQ"})


def test_what_is_left_out_tied_and_unknown_is_counted(r2m, config: Config, storage: str, tmp_path: Path) -> None:
    rows = [
        ("i feel sad . tl;dr:", " mom sold tv", " boss"),
        ("i feel sad . tl;dr:", " zebra", " yak"),  # one token each, the same
        ("i feel sad . tl;dr:", " mom", " mom"),
        ("i feel sad . tl;dr:", " mom", ""),
        ("tl;dr:", " mom" * 70, " mom"),
    ]
    file = pairs_file(tmp_path / "some.jsonl", rows)
    bench = open_bench(config, prompts=1)
    (tree,) = reward_accuracy(bench, bench.supervised, None, file_pairs(bench, bench.supervised, file))[2:]
    assert (tree.n, tree.left_out, tree.without.ties) == (2, 3, 1)
    texts = [("i feel sad . tl;dr:" + text) for text in (" mom sold tv", " boss", " zebra", " yak")]
    tokens = [i for text in texts for i in [*bench.reward_tokenizer(text)["input_ids"], 1]]
    assert tree.unknown == pytest.approx(tokens.count(2) / len(tokens))
    assert tokens.count(2) > 0
    code, out, err = r2m("evaluate", "r2m", "--storage", storage, "--prompts", "1", "--pairs", file)
    assert code == 0, err
    said = " ".join(out.split())
    assert "3 of 5 pairs left out: 1: chosen and rejected are equal (first: line 3); 1: chosen or rejected is" in said
    assert "1: longer than the models' contexts (first: line 5)" in said
    assert "1 tied" in said
    assert f"{100 * tree.unknown:.1f} %" in said


def test_real_pairs(text_recipe, tmp_path: Path) -> None:
    """UltraFeedback's evaluation rows, by a classifier of width 16 that reads bytes."""
    data = SHARED / "ultrafeedback_subset" / "eval.jsonl.gz"
    if not data.is_file():
        pytest.skip(f"{data} is not there")
    recipe = text_recipe([{"prompt": f"What is {i}?", "completion": f"{i}"} for i in range(4)])
    bench = open_bench(load(recipe, byte_models(tmp_path, CHATML)))
    extra = file_pairs(bench, bench.supervised, str(data))
    (tree,) = reward_accuracy(bench, bench.supervised, None, extra)
    rows = preference_pairs(read_rows(str(data)))
    assert tree.n + tree.left_out == len(rows) == 200
    assert tree.n > 20
    assert 2 * tree.n < CHUNK
    assert tree.without.accuracy == pytest.approx(slow_accuracy(bench, bench.supervised, None, extra[0][1]))
    assert (tree.before, tree.after) == (None, None)


def test_a_tie_is_wrong_and_is_counted() -> None:
    found = accuracy([2.0, 1.0, 0.5, -1.0], [1.0, 1.0, 0.7, -3.0])
    assert (found.accuracy, found.ties, found.n) == (0.5, 1, 4)
    # Wilson at 2 of 4: the centre is 1/2, half the width z sqrt(1/16 + z²/64) / (1 + z²/4).
    half = 1.959964 * math.sqrt(1 / 16 + 1.959964**2 / 64) / (1 + 1.959964**2 / 4)
    assert found.interval == pytest.approx((0.5 - half, 0.5 + half), abs=1e-9)
    assert found.interval == wilson_interval(0.5, 4)


def test_all_right_and_all_wrong() -> None:
    assert accuracy([1.0], [0.0]).accuracy == 1
    assert accuracy([0.0], [1.0]).accuracy == 0


@pytest.mark.parametrize(("chosen", "rejected"), [([], []), ([1.0], []), ([math.nan], [0.0])])
def test_what_cannot_be_counted_is_refused(chosen: list[float], rejected: list[float]) -> None:
    with pytest.raises(ValueError, match=r"at least one|NaN"):
        accuracy(chosen, rejected)
