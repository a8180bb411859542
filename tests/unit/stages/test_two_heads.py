"""ODIN's second head: what it is while a model trains, and that nothing is left of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from r2m.core.odin import pearson
from r2m.reward.inputs import response_ids
from r2m.reward.loading import load_reward_model
from r2m.stages.reward_model import load_classifier, run_reward_model, train_reward_model
from r2m.stages.two_heads import FEATURES, odin_loss, two_heads
from r2m.tasks.prompt import Prompt

WORDS = ("mom", "dad", "boss", "uncle", "coach", "sister")
# The one with "help" is preferred, and it is also the longer one.
PAIRS = [
    (Prompt(text=f"{a} tl;dr:"), f" {a} {b} help {c}", f" {a} {b}") for a in WORDS for b in WORDS for c in WORDS[:2]
]


@pytest.fixture
def classifier(policy_folder: str) -> Any:
    return load_classifier(policy_folder)


def scores_of(model: Any, tokenizer: PreTrainedTokenizerFast, prompt: Prompt, *texts: str) -> torch.Tensor:
    with torch.no_grad():
        ids = [torch.tensor([response_ids(tokenizer, prompt, text)]) for text in texts]
        return torch.stack([model(input_ids=x).logits[0] for x in ids])


def test_both_heads_read_what_the_models_own_reads(classifier: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    asked = (tokenizer, PAIRS[0][0], " mom help")
    before, names = scores_of(classifier, *asked), set(dict(classifier.named_parameters()))
    own = classifier.score
    with two_heads(classifier, 0) as heads:
        both = scores_of(classifier, *asked)
        assert both.shape == (1, 2)
        torch.testing.assert_close(both[:, :1], before)
        with torch.no_grad():
            heads.weight[0] *= 3
    assert classifier.score is own
    torch.testing.assert_close(scores_of(classifier, *asked), 3 * before)
    assert set(dict(classifier.named_parameters())) == names


def test_a_head_with_a_bias_keeps_it() -> None:
    small = {
        "vocab_size": 12,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    bert = BertForSequenceClassification(BertConfig(**small, num_labels=1)).eval()
    with torch.no_grad():
        bert.classifier.bias.fill_(0.7)
        before = bert(input_ids=torch.tensor([[3, 4, 5]])).logits
        with two_heads(bert, 0):
            assert bert(input_ids=torch.tensor([[3, 4, 5]])).logits.shape == (1, 2)
        torch.testing.assert_close(bert(input_ids=torch.tensor([[3, 4, 5]])).logits, before)


def test_the_whole_loss_by_hand() -> None:
    heads = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        heads.weight.copy_(torch.tensor([[2.0, 0.0], [3.0, 4.0]]))  # cosine 3/5
    scores_B2 = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    feature_B = torch.tensor([0.0, 0.0, 1.0, 1.0])  # is the second head's score: -1
    loss = odin_loss(torch.tensor(0.5), scores_B2, feature_B, heads).detach()
    assert float(loss) == pytest.approx(0.5 - 1 + 0.6)


def test_features_by_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    assert FEATURES["length"](tokenizer, " mom sold tv") == 3
    assert FEATURES["spaces"](tokenizer, " mom tv") == pytest.approx(2 / 7)
    assert FEATURES["spaces"](tokenizer, "") == 0


def test_quality_goes_with_the_length_no_longer(policy_folder: str, tokenizer: PreTrainedTokenizerFast) -> None:
    told = {}
    for odin in ("none", "length"):
        model = load_classifier(policy_folder)
        report = train_reward_model(model, tokenizer, PAIRS, epochs=6, batch_size=24, lr=3e-3, odin=odin)
        texts = [(prompt, text) for prompt, *texts in PAIRS for text in texts]
        scores = torch.cat([scores_of(model, tokenizer, *asked) for asked in texts]).squeeze(-1)
        lengths = torch.tensor([FEATURES["length"](tokenizer, text) for _, text in texts])
        told[odin] = abs(float(pearson(scores, lengths)))
        assert ("feature_correlation" in report) == (odin == "length")
    assert told["none"] > 0.9
    assert told["length"] < 0.5


def test_run_reward_model_leaves_an_ordinary_model(policy_folder: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [{"prompt": p.text, "chosen": chosen, "rejected": rejected} for p, chosen, rejected in PAIRS[::4]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run_reward_model(policy_folder, str(data), tmp_path / "out", odin="spaces", rrm=0.2)
    assert -1 <= report["feature_correlation"] <= 1
    assert report["mixed"] > 0
    assert load_reward_model(str(tmp_path / "out"))[0].model.score.weight.shape == (1, 32)
