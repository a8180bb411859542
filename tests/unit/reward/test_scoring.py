"""What the reward model is given of a trajectory. Axes: N queries, K responses, R response tokens."""

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

from r2m.config import Reward
from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.policy.queries import Query, same_tokens
from r2m.reward.model import RewardModel
from r2m.reward.scoring import RewardEmbedder, end_token_rule
from r2m.tasks.encoding import decode
from r2m.tasks.prompt import Prompt

WordTokenizer = Callable[..., PreTrainedTokenizerFast]


@pytest.fixture
def other(word_tokenizer: WordTokenizer) -> PreTrainedTokenizerFast:
    """The same words under other ids, and another end token."""
    made = word_tokenizer("<unk>", "</s>", words="hgfedcba")
    made.eos_token = "</s>"
    return made


@pytest.fixture
def reward(small: dict[str, int]) -> RewardModel:
    torch.manual_seed(0)
    hf_config = LlamaConfig(**small | {"max_position_embeddings": 10}, num_labels=1, pad_token_id=1)
    return RewardModel(AutoModelForSequenceClassification.from_config(hf_config).eval())


def round_of(
    tokenizer: PreTrainedTokenizerFast, prompts: list[str], responses: list[list[str]], ended: list[list[bool]]
) -> tuple[list[Query], Trajectories]:
    queries = [Query(Prompt(text=p), tokenizer(p).input_ids) for p in prompts]
    eos = [tokenizer.eos_token_id]
    flat = [
        tokenizer(r).input_ids + eos * e
        for group, ends in zip(responses, ended, strict=True)
        for r, e in zip(group, ends, strict=True)
    ]
    prompt_ids, prompt_mask = pad([q.ids for q in queries], 0, "left")
    ids, mask = (x.view(len(prompts), len(responses[0]), -1) for x in pad(flat, 0, "right"))
    return queries, Trajectories(prompt_ids, prompt_mask, ids, mask, torch.zeros(ids.shape), torch.tensor(ended))


PROMPTS, RESPONSES = ["a b c", "d"], [["e f", "g"], ["h h h", ""]]
ENDED = [[True, False], [True, True]]


def expected(reward: RewardModel, sequences: list[list[int]]) -> torch.Tensor:
    """H_last of each sequence on its own."""
    with torch.no_grad():
        return torch.cat([reward.embed(*pad([s], 0, "right")) for s in sequences])


@pytest.mark.parametrize("microbatch", [1, 3, 4])
def test_ids_pass_as_they_are_between_equal_tokenizers(
    tokenizer: PreTrainedTokenizerFast, reward: RewardModel, microbatch: int
) -> None:
    queries, t = round_of(tokenizer, PROMPTS, RESPONSES, ENDED)
    H_NKD = RewardEmbedder(reward, tokenizer, tokenizer, microbatch).embed(queries, t)
    eos = tokenizer.eos_token_id
    ids = dict(zip("abcdefgh", range(4, 12), strict=True))
    sequences = [
        [ids["a"], ids["b"], ids["c"], ids["e"], ids["f"], eos],
        [ids["a"], ids["b"], ids["c"], ids["g"]],  # not ended: no end token
        [ids["d"], ids["h"], ids["h"], ids["h"], eos],
        [ids["d"], eos],
    ]
    torch.testing.assert_close(H_NKD.flatten(0, 1), expected(reward, sequences), atol=1e-5, rtol=1e-5)


def test_text_passes_between_different_tokenizers(
    tokenizer: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast, reward: RewardModel
) -> None:
    queries, t = round_of(tokenizer, PROMPTS, RESPONSES, ENDED)
    H_NKD = RewardEmbedder(reward, other, tokenizer, 4).embed(queries, t)
    ids = dict(zip("hgfedcba", range(2, 10), strict=True))
    sequences = [
        [ids["a"], ids["b"], ids["c"], ids["e"], ids["f"], 1],
        [ids["a"], ids["b"], ids["c"], ids["g"]],
        [ids["d"], ids["h"], ids["h"], ids["h"], 1],
        [ids["d"], 1],
    ]
    torch.testing.assert_close(H_NKD.flatten(0, 1), expected(reward, sequences), atol=1e-5, rtol=1e-5)


def test_same_tokens(
    tokenizer: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast, word_tokenizer: WordTokenizer
) -> None:
    assert same_tokens(tokenizer, tokenizer)
    assert not same_tokens(tokenizer, other)
    templated = word_tokenizer("[UNK]", "[PAD]", "[EOS]", "[BOS]")
    templated.eos_token = "[EOS]"
    assert same_tokens(tokenizer, templated)
    templated.chat_template = "{{ messages[0]['content'] }}"
    assert not same_tokens(tokenizer, templated)


def test_a_sequence_beyond_the_context_is_refused(tokenizer: PreTrainedTokenizerFast, reward: RewardModel) -> None:
    scorer = RewardEmbedder(reward, tokenizer, tokenizer, 4)
    scorer.embed(*round_of(tokenizer, ["a a a a a"], [["b b b b", "c"]], [[True, True]]))  # 10 tokens
    with pytest.raises(UserError, match="query and response have 11 tokens, its context is 10"):
        scorer.embed(*round_of(tokenizer, ["a a a a a"], [["b b b b b", "c"]], [[True, True]]))


def test_decode_leaves_out_special_tokens_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    assert decode(tokenizer, [4, 5, 2, 1]) == "a b"


@pytest.mark.parametrize(
    ("no_eos", "value", "cut"),
    [("keep", -1.0, 3.0), ("replace", -1.0, -1.0), ("subtract", -1.0, 2.0), ("subtract", 2.5, 0.5)],
)
def test_end_token_rule(no_eos: str, value: float, cut: float) -> None:
    reward = Reward(no_eos=no_eos, no_eos_value=value)
    scores = end_token_rule(torch.tensor([[3.0, 3.0]]), torch.tensor([[True, False]]), reward)
    assert scores.tolist() == [[3.0, cut]]
