"""Reward-model training: Eq. 7 by hand, and models that reload as the loop loads them."""

import copy
import json
import math
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import pytest
import torch
from made_tokenizers import TEMPLATES, chat_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.models.loading import load_tokenizer
from r2m.models.saving import save_model
from r2m.policy.queries import Query
from r2m.reward.inputs import response_ids
from r2m.reward.loading import load_reward_model
from r2m.reward.model import RewardModel
from r2m.reward.scoring import RewardEmbedder
from r2m.stages.reward_model import add_padding, load_classifier, run_reward_model, train_reward_model
from r2m.tasks.prompt import Prompt, prompt_ids

ASKED = Prompt(text="my mom sold my tv . tl;dr:")
PAIRS = [
    (ASKED, " mom sold tv", " boss"),
    (Prompt(text="i feel sad . tl;dr:"), " sad", " angry and tired"),
    (Prompt(text="i need help . tl;dr:"), " need help", " help"),
]


@pytest.fixture
def classifier(policy_folder: str) -> Any:
    return load_classifier(policy_folder)


def scores(model: Any, tokenizer: PreTrainedTokenizerFast, responses: list[tuple[Prompt, str]]) -> list[float]:
    """One at a time, without padding."""
    ids = [torch.tensor([response_ids(tokenizer, *response)]) for response in responses]
    with torch.no_grad():
        return [float(model(input_ids=x).logits) for x in ids]


def test_held_out_figures_by_hand(classifier: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    margins = [a - b for a, b in (scores(classifier, tokenizer, [(p, c), (p, r)]) for p, c, r in PAIRS)]
    everything = scores(classifier, tokenizer, [(p, text) for p, *texts in PAIRS for text in texts])
    report = train_reward_model(classifier, tokenizer, PAIRS, lr=1e-9, held_out_share=0.67)
    held_out = next(
        [m for j, m in enumerate(margins) if j != i]
        for i in range(3)
        if sum(margins) - margins[i] == pytest.approx(2 * report["margin"], rel=1e-5, abs=1e-5)
    )
    loss = sum(math.log1p(math.exp(-m)) for m in held_out) / 2
    assert report["loss_before"] == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert report["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert report["accuracy"] == sum(m > 0 for m in held_out) / 2
    assert report["reward_mean"] == pytest.approx(sum(everything) / 6, rel=1e-5, abs=1e-5)
    assert report["reward_mean_of"] == "the data's responses"


def test_it_learns_what_is_preferred(classifier: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    words = ("mom", "dad", "boss", "uncle", "coach", "sister")
    pairs = [(ASKED, f" {a} {b}", f" {a}{b}") for a in words for b in words]  # spaces are good
    report = train_reward_model(classifier, tokenizer, pairs, epochs=4, batch_size=8, lr=3e-3, held_out_share=0.2)
    assert (report["rows"], report["held_out_rows"], report["steps"]) == (29, 7, 16)
    assert report["accuracy"] == 1.0
    assert report["accuracy_interval"] == pytest.approx([0.646, 1.0], abs=1e-3)
    assert report["loss"] < 0.1 < report["loss_before"]
    assert report["margin"] > 2
    assert not classifier.training


def test_mixed_pairs_are_trained_on_beside_the_others(classifier: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    words = ("mom", "dad", "boss", "uncle", "coach", "sister")
    pairs = [(Prompt(text=f"my {a} sold my tv . tl;dr:"), f" {a}", f" {a}{a}") for a in words]
    report = train_reward_model(classifier, tokenizer, pairs, batch_size=8, held_out_share=0.2, rrm=1.0)
    # 5 are trained on, with 14 more each, of which none is too long; held out is one of the data's own.
    assert (report["rows"], report["held_out_rows"], report["steps"]) == (5, 1, 10)
    assert (report["mixed"], report["mixed_left_out"]) == (70, 0)


def test_mixed_pairs_longer_than_the_data_and_of_twice_the_same_are_left_out(
    classifier: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    pairs = [(Prompt(text=text), " mom", " dad") for text in ("i", "my", "the", "and")]
    report = train_reward_model(classifier, tokenizer, pairs, held_out_share=0.1, rrm=1.0)
    # 3 trained on. Each meets " mom" and " dad" of two others: of 8 wins half are of equal texts, of 6 ties two.
    assert (report["mixed"], report["mixed_left_out"]) == (3 * 8, 3 * 6)
    long = [(Prompt(text="i"), " mom" * 5, " dad"), *pairs[1:3], (Prompt(text="my" + " i" * 5), " tv", " car")]
    with_it = train_reward_model(classifier, tokenizer, long, held_out_share=0.1, rrm=1.0, seed=3)
    assert with_it["mixed_left_out"] > 0
    assert train_reward_model(classifier, tokenizer, long, seed=3).keys().isdisjoint(("mixed", "mixed_left_out"))


def test_what_every_prompt_shares_is_worth_less_to_a_model_of_mixed_pairs(
    policy_folder: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Chosen responses have an artefact, ", and" at the end; both of a pair name what their own prompt is about."""
    words = ("mom", "dad", "boss", "uncle", "coach", "sister", "cousin", "grandpa", "dentist", "brother")
    pairs = [(Prompt(text=f"{a} tl;dr:"), f" {a} {b} , and", f" {a} {b}") for a in words for b in words]

    found = []
    for rrm in (0.0, 0.5):
        model = load_classifier(policy_folder)
        train_reward_model(model, tokenizer, pairs, epochs=4, lr=3e-3, rrm=rrm)
        asked = [(Prompt(text=f"{a} tl;dr:"), a, b) for a in words for b in words if a != b]
        own, with_it, without = (
            mean(scores(model, tokenizer, some))
            for some in (
                [(prompt, f" {a} tv") for prompt, a, _ in asked],
                [(prompt, f" {b} tv , and") for prompt, _, b in asked],
                [(prompt, f" {b} tv") for prompt, _, b in asked],
            )
        )
        found.append((with_it - without, own - without))
    (artefact, topic), (artefact_of_mixed, topic_of_mixed) = found
    assert artefact > 1  # off the topic
    assert artefact_of_mixed < artefact / 2
    assert topic_of_mixed > 0.5 > topic


def test_the_mean_is_of_the_sft_samples_where_they_are_given(
    classifier: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    samples = [(ASKED, " mom"), (ASKED, " tv sold mom and i need help")]
    report = train_reward_model(classifier, tokenizer, PAIRS, lr=1e-3, sft_samples=samples)
    assert report["reward_mean"] == pytest.approx(sum(scores(classifier, tokenizer, samples)) / 2, rel=1e-5, abs=1e-5)
    assert report["reward_mean"] == classifier.config.reward_mean
    assert report["reward_mean_of"] == "SFT samples"


def test_what_the_data_reach_is_almost_the_best_held_out_score(
    classifier: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    report = train_reward_model(classifier, tokenizer, PAIRS, lr=1e-3)  # one pair is held out
    seen = []
    for prompt, *texts in PAIRS:
        low, high = sorted(
            s - report["reward_mean"] for s in scores(classifier, tokenizer, [(prompt, t) for t in texts])
        )
        seen.append(pytest.approx(low + 0.99 * (high - low), rel=1e-5, abs=1e-5))
    assert report["reward_seen"] in seen
    assert report["reward_seen"] == classifier.config.reward_seen


def test_long_pairs_are_left_out_and_counted(classifier: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    report = train_reward_model(classifier, tokenizer, PAIRS, max_tokens=10)  # 12, 9 and 8 tokens at most
    assert (report["rows"], report["held_out_rows"], report["left_out"]) == (1, 1, 1)
    long = (Prompt(text="mom" + " sad" * 20), " help", " help" * 4)
    with pytest.raises(UserError, match="longest sequence has 26 tokens"):
        train_reward_model(classifier, tokenizer, [*PAIRS, long])


def test_pairs_that_are_equal_to_the_model_are_left_out_and_counted(
    classifier: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    unknown = [(ASKED, " zebra", " yak"), (ASKED, " sad", " sad")]  # neither word is in the vocabulary
    with_them, without = (copy.deepcopy(classifier) for _ in range(2))
    report = train_reward_model(with_them, tokenizer, [*PAIRS, *unknown], lr=1e-2)
    assert (report["rows"], report["held_out_rows"], report["left_out"], report["equal"]) == (2, 1, 0, 2)
    assert report == train_reward_model(without, tokenizer, PAIRS, lr=1e-2) | {"equal": 2}
    with pytest.raises(UserError, match="data: 1 usable rows, 0 longer than max_tokens, 2 whose"):
        train_reward_model(classifier, tokenizer, [PAIRS[0], *unknown])


def test_a_policy_s_end_token_changes_no_score_of_a_conversation() -> None:
    """A model of Gemma's kind, trained here: in the loop it tells apart what it was trained to, by either end."""
    tokenizer = chat_tokenizer(TEMPLATES["gemma"])
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 128, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    classifier = LlamaForSequenceClassification(LlamaConfig(**shape, num_labels=1))
    words = ("yes", "no", "so", "it", "we", "go")
    pairs = [
        (Prompt(messages=({"role": "user", "content": f"{a}?"},)), f"{b} {a}", f"{b}{a}")
        for a in words
        for b in words
    ]
    report = train_reward_model(classifier, tokenizer, pairs, epochs=12, batch_size=12, lr=1e-2)
    assert report["accuracy"] == 1
    scorer = RewardEmbedder(RewardModel(classifier), tokenizer, tokenizer, microbatch=16)
    queries = [Query(prompt, prompt_ids(prompt, tokenizer)) for prompt, *_ in pairs]
    scores = []
    for end in ("<eos>", "<end_of_turn>"):
        flat = [
            [*tokenizer(text)["input_ids"], tokenizer.convert_tokens_to_ids(end)]
            for _, *texts in pairs
            for text in texts
        ]
        padded_ids, prompt_mask = pad([q.ids for q in queries], 0, "left")
        ids, mask = (x.view(len(pairs), 2, -1) for x in pad(flat, 0, "right"))
        t = Trajectories(
            padded_ids, prompt_mask, ids, mask, torch.zeros(ids.shape), torch.ones(len(pairs), 2, dtype=torch.bool)
        )
        with torch.no_grad():
            scores.append(scorer.phi(scorer.embed(queries, t)).squeeze(-1))
    assert torch.equal(*scores)
    margins = scores[0][:, 0] - scores[0][:, 1]
    assert float((margins > 0).float().mean()) == 1
    whole = torch.tensor([
        tokenizer.apply_chat_template(
            [*(pairs[0][0].messages or ()), {"role": "assistant", "content": pairs[0][1]}], return_dict=False
        )
    ])  # fmt: skip
    with torch.no_grad():
        own = classifier(input_ids=whole).logits - report["reward_mean"]
    assert float(scores[0][0, 0]) == pytest.approx(float(own), rel=1e-5, abs=1e-5)


def test_padding_that_is_the_end_token_is_refused(classifier: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(UserError, match="no padding token apart from its end token"):
        train_reward_model(classifier, tokenizer, PAIRS)


def test_add_padding_makes_a_token_that_nothing_else_uses(
    classifier: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    size = len(tokenizer)
    add_padding(classifier, tokenizer)  # has one
    assert (tokenizer.pad_token_id, classifier.config.pad_token_id, len(tokenizer)) == (0, 0, size)
    before = scores(classifier, tokenizer, [(ASKED, " mom")])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.backend_tokenizer.normalizer = None
    add_padding(classifier, tokenizer)
    assert tokenizer.pad_token_id == classifier.config.pad_token_id != tokenizer.eos_token_id
    assert classifier.get_input_embeddings().num_embeddings >= len(tokenizer)
    assert scores(classifier, tokenizer, [(ASKED, " mom")]) == before


def test_a_scoring_layer_is_a_function_of_the_seed(policy_folder: str) -> None:
    state = torch.random.get_rng_state()
    one, same, other = (load_classifier(policy_folder, seed).score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(UserError, match="model = 'nowhere'"):
        load_classifier("nowhere")


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": p.text, "chosen": chosen, "rejected": rejected} for p, chosen, rejected in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_run_reward_model_saves_what_the_loop_loads_with_mean_0(
    policy_folder: str, data: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = run_reward_model(policy_folder, data, out, lr=1e-2, epochs=3)
    assert json.loads((out / "report.json").read_text())["accuracy"] == report["accuracy"]
    reward, head = load_reward_model(str(out))
    assert head is None
    tokenizer = load_tokenizer(str(out))
    ids = [response_ids(tokenizer, p, text) for p, *texts in PAIRS for text in texts]
    with torch.no_grad():
        rewards = reward(*pad(ids, 0, "right"))
    assert report["reward_mean"] != pytest.approx(0, abs=1e-3)
    assert float(rewards.mean()) == pytest.approx(0, rel=1e-5, abs=1e-5)
    assert report["held_out_rows"] == 1
    margins = (rewards[::2] - rewards[1::2]).tolist()
    assert min(abs(report["margin"] - margin) for margin in margins) < 1e-5


def test_run_reward_model_of_a_model_without_a_padding_token(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: str, tmp_path: Path
) -> None:
    tokenizer.pad_token = tokenizer.unk_token = None  # nothing is left to pad with
    folder = tmp_path / "bare"
    save_model(folder, policy, tokenizer)
    run_reward_model(str(folder), data, tmp_path / "out")
    made = load_tokenizer(str(tmp_path / "out"))
    assert made.pad_token == "[PAD]"
    assert made.pad_token_id != made.eos_token_id
    assert load_reward_model(str(tmp_path / "out"))[0].model.config.pad_token_id == made.pad_token_id


def test_run_reward_model_refuses_unusable_data_and_leaves_nothing(
    policy_folder: str, data: str, tmp_path: Path
) -> None:
    Path(data).write_text('{"prompt": "mom", "completion": " help"}\n')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="no column chosen, rejected; the data has prompt, completion"):
        run_reward_model(policy_folder, data, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_run_reward_model_leaves_out_what_cannot_be_compared_and_says_so(policy_folder: str, tmp_path: Path) -> None:
    rows = [{"prompt": p.text, "chosen": c, "rejected": r} for p, c, r in PAIRS * 3]
    rows += [rows[0] | {"rejected": rows[0]["chosen"]}, rows[0] | {"rejected": ""}, {"prompt": "mom"}]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run_reward_model(policy_folder, str(data), tmp_path / "out")
    assert (report["rows"], report["held_out_rows"], report["left_out"]) == (8, 1, 0)
    assert report["data_left_out"] == {
        "it has no chosen": {"rows": 1, "first": "line 12"},
        "chosen and rejected are equal": {"rows": 1, "first": "line 10"},
        "chosen or rejected is empty": {"rows": 1, "first": "line 11"},
    }
    assert json.loads((tmp_path / "out" / "report.json").read_text())["data_left_out"] == report["data_left_out"]


def test_run_reward_model_mixes_pairs_across_prompts(policy_folder: str, data: str, tmp_path: Path) -> None:
    rows = [{"prompt": p.text, "chosen": c, "rejected": r} for p, c, r in PAIRS] + [
        {"prompt": "boss tl;dr:", "chosen": " boss", "rejected": " mom"}
    ]
    Path(data).write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run_reward_model(policy_folder, data, tmp_path / "out", rrm=0.5)
    assert report["rows"] == 3
    assert report["mixed"] + report["mixed_left_out"] == 21
    assert load_reward_model(str(tmp_path / "out"))[1] is None


def test_run_reward_model_of_equal_pairs_alone(policy_folder: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(json.dumps({"prompt": "mom", "chosen": " sad", "rejected": " sad"}) + "\n")
    said = "0 usable rows, and at least 2 are needed; 1 of 1 rows left out: 1: chosen and rejected are equal"
    with pytest.raises(UserError, match=said):
        run_reward_model(policy_folder, str(data), tmp_path / "out")


def test_run_reward_model_leaves_out_what_the_template_refuses(policy_folder: str, tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    template += "{% for m in messages %}{{ m.content }}{% endfor %}"
    (Path(policy_folder) / "chat_template.jinja").write_text(template)
    user, system = {"role": "user", "content": "mom"}, {"role": "system", "content": "s"}
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": turns, "chosen": " help", "rejected": " sad"} for turns in [[user]] * 10 + [[system, user]]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run_reward_model(policy_folder, str(data), tmp_path / "out")
    ((reason, of),) = report["data_left_out"].items()
    assert (reason, of["rows"]) == ("a chat template refuses it", 1)
    assert of["first"].startswith("line 11: ")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[5:]))
    with pytest.raises(UserError, match=r"^data = '.*', line 6: .*no system turn"):
        run_reward_model(policy_folder, str(data), tmp_path / "more")
    assert not (tmp_path / "more").exists()
