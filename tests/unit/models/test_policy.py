"""The shared-prompt forward against each sequence on its own, and what is kept of the hidden states.

Axes: N queries, K responses, P prompt tokens, R response tokens, D width.
"""

from collections.abc import Callable

import pytest
import torch
from transformers import GPT2Config, GPTNeoXConfig, PreTrainedConfig, PreTrainedModel, Qwen2Config

from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories, microbatches
from r2m.models.policy import HiddenStates, policy_forward

SMALL = {
    "vocab_size": 12, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
ARCHITECTURES = [
    None,  # Llama with grouped queries
    Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True),
    GPTNeoXConfig(**SMALL),
    GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=4, n_positions=64),
]
PROMPTS = [[3, 4, 5, 6, 7], [8], [9, 10, 3]]
RESPONSES = [[[5, 2], [6, 7, 8, 2]], [[4, 4, 4, 4], [2]], [[3, 2], [11, 10, 2]]]
TEMPERATURE = 0.7
Make = Callable[..., PreTrainedModel]


def trajectories(prompts: list[list[int]], responses: list[list[list[int]]], extra: int = 0) -> Trajectories:
    """Padded by `extra` columns more than needed, with ids that are also tokens."""
    width = max(len(p) for p in prompts) + extra
    prompt_ids, prompt_mask = pad(prompts, 7, "left", width)
    flat = [r for group in responses for r in group]
    ids, mask = pad(flat, 5, "right", max(len(r) for r in flat) + extra)
    N, K = len(prompts), len(responses[0])
    ids, mask = ids.view(N, K, -1), mask.view(N, K, -1)
    return Trajectories(
        prompt_ids, prompt_mask, ids, mask, torch.zeros(ids.shape), torch.ones(N, K, dtype=torch.bool)
    )


def one_by_one(model: PreTrainedModel, prompt: list[int], response: list[int]) -> tuple[torch.Tensor, ...]:
    """Log-probs and entropies of a response, and the hidden states of all inputs that predict, unbatched."""
    ids = torch.tensor([prompt + response])
    out = model(input_ids=ids, output_hidden_states=True)
    log_probs = (out.logits[0, :-1] / TEMPERATURE).log_softmax(-1)
    rows = log_probs[len(prompt) - 1 :]
    picked = rows.gather(1, torch.tensor(response)[:, None]).squeeze(1)
    return picked, -(rows.exp() * rows).sum(-1), out.hidden_states[-1][0, :-1]


@pytest.mark.parametrize("hf_config", ARCHITECTURES, ids=["llama", "qwen2", "neox", "gpt2"])
@pytest.mark.parametrize("extra", [0, 3])
def test_equals_each_sequence_on_its_own(make_policy: Make, hf_config: PreTrainedConfig, extra: int) -> None:
    model = make_policy(hf_config)
    out = policy_forward(model, trajectories(PROMPTS, RESPONSES, extra), TEMPERATURE)
    for n, prompt in enumerate(PROMPTS):
        for k, response in enumerate(RESPONSES[n]):
            log_probs, entropy, hidden = one_by_one(model, prompt, response)
            P, R = len(prompt), len(response)
            torch.testing.assert_close(out.log_probs_NKR[n, k, :R], log_probs, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.entropy_NKR[n, k, :R], entropy, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.prompt_hidden_NPD[n, -P:], hidden[:P], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                out.response_hidden_NKRD[n, k, : R - 1], hidden[P:], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("hf_config", ARCHITECTURES, ids=["llama", "qwen2", "neox", "gpt2"])
def test_gradients_equal_those_of_each_sequence_on_its_own(
    make_policy: Make, hf_config: PreTrainedConfig
) -> None:
    model = make_policy(hf_config)
    t = trajectories(PROMPTS, RESPONSES, extra=2)
    weights = torch.arange(1.0, t.response_mask_NKR.numel() + 1).view(t.response_mask_NKR.shape)
    (policy_forward(model, t, TEMPERATURE).log_probs_NKR * weights * t.response_mask_NKR).sum().backward()
    shared = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for n, prompt in enumerate(PROMPTS):
        for k, response in enumerate(RESPONSES[n]):
            log_probs, _, _ = one_by_one(model, prompt, response)
            (log_probs * weights[n, k, : len(response)]).sum().backward()
    apart = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(shared) == len(apart) > 0
    for a, b in zip(shared, apart, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_responses_of_one_token(make_policy: Make) -> None:
    model = make_policy()
    out = policy_forward(model, trajectories(PROMPTS, [[[2], [3]]] * 3), TEMPERATURE)
    assert out.response_hidden_NKRD.shape == (3, 2, 0, 16)
    for n, prompt in enumerate(PROMPTS):
        expected, _, _ = one_by_one(model, prompt, [3])
        torch.testing.assert_close(out.log_probs_NKR[n, 1], expected, atol=1e-5, rtol=1e-5)


class TestHiddenStates:
    @pytest.mark.parametrize("size", [1, 2, 4, 6])
    def test_rows_do_not_depend_on_the_microbatches_that_stored_them(
        self, make_policy: Make, size: int
    ) -> None:
        """Each part comes without the columns that are padding in all of it, and finds its place again."""
        model, t = make_policy(), trajectories(PROMPTS, RESPONSES, extra=1)
        hidden = HiddenStates(t, torch.float32, "cpu")
        for at in microbatches(range(3), 2, size):
            hidden.store(*at, policy_forward(model, t.block(*at), TEMPERATURE))
        rows_BTD, mask_BT = hidden.rows(slice(0, 3), "cpu")
        assert rows_BTD.shape == (6, 6 + 5 - 1, 16)
        for n, prompt in enumerate(PROMPTS):
            for k, response in enumerate(RESPONSES[n]):
                _, _, expected = one_by_one(model, prompt, response)
                row = rows_BTD[2 * n + k][mask_BT[2 * n + k]]
                assert len(row) == len(prompt) + len(response) - 1  # S - 1 rows, Sec. 4.1
                torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)

    def test_rows_of_some_queries(self, make_policy: Make) -> None:
        model, t = make_policy(), trajectories(PROMPTS, RESPONSES)
        hidden = HiddenStates(t, torch.float32, "cpu")
        hidden.store(slice(0, 3), slice(0, 2), policy_forward(model, t, TEMPERATURE))
        everything, mask = hidden.rows(slice(0, 3), "cpu")
        some, some_mask = hidden.rows(slice(1, 2), "cpu")
        torch.testing.assert_close(some, everything[2:4], atol=0, rtol=0)
        assert torch.equal(some_mask, mask[2:4])

    def test_they_are_refreshed_detached_and_in_the_stated_precision(self, make_policy: Make) -> None:
        t = trajectories(PROMPTS, RESPONSES)
        hidden = HiddenStates(t, torch.bfloat16, "cpu")
        for seed in (1, 2):
            model = make_policy()
            torch.manual_seed(seed)
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.1 * torch.randn_like(p))
            out = policy_forward(model, t, TEMPERATURE)
            hidden.store(slice(0, 3), slice(0, 2), out)
        rows, _ = hidden.rows(slice(0, 3), "cpu")
        assert (rows.dtype, rows.requires_grad) == (torch.bfloat16, False)
        torch.testing.assert_close(rows[0, :5], out.prompt_hidden_NPD[0].detach().bfloat16(), atol=0, rtol=0)
