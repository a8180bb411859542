"""The shared-prompt forward against each sequence on its own, and what is kept of the hidden states.

Axes: N queries, K responses, P prompt tokens, R response tokens, D width.
"""

from collections.abc import Callable

import pytest
import torch
from transformers import (
    BartConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    MambaConfig,
    OpenAIGPTConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3NextConfig,
)

from r2m.core.masking import pad, token_log_probs
from r2m.core.trajectories import Trajectories, microbatches
from r2m.models.families import CacheUse
from r2m.policy.forward import HiddenStates, hidden_width, policy_forward
from r2m.policy.loading import frozen_twin
from r2m.policy.output import cache_use, own_logits, unused_ids

SMALL = {
    "vocab_size": 12, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
RECURRENT = {
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
}
ARCHITECTURES = {
    "llama": None,  # with grouped queries
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True),
    "neox": GPTNeoXConfig(**SMALL),
    "gpt2": GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=4, n_positions=64),
    # Logits that are not a linear map of the hidden states: soft caps and scales.
    "gemma2": Gemma2Config(**SMALL, head_dim=4, num_key_value_heads=2, final_logit_softcapping=0.5, sliding_window=4),
    "cohere": CohereConfig(**SMALL, logit_scale=0.3),
    "granite": GraniteConfig(**SMALL, logits_scaling=0.2, embedding_multiplier=3.0),
    # Embeddings narrower than the layers, as OPT-350m's.
    "opt": OPTConfig(
        vocab_size=12, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=8,
        do_layer_norm_before=False, max_position_embeddings=64,
    ),
    "phi3": Phi3Config(
        **SMALL, pad_token_id=0, original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 2, "long_factor": [4.0] * 2,
        },
    ),
    # No keys and values that responses could share.
    "mamba": MambaConfig(vocab_size=12, hidden_size=16, num_hidden_layers=2, state_size=4),
    "qwen3_next": Qwen3NextConfig(
        **SMALL, **RECURRENT, **EXPERTS, num_key_value_heads=2, head_dim=4,
        layer_types=["linear_attention", "full_attention"],
    ),
    "bart": BartConfig(
        vocab_size=12, d_model=16, decoder_layers=2, decoder_ffn_dim=32, decoder_attention_heads=4,
        max_position_embeddings=64,
    ),
    "openai-gpt": OpenAIGPTConfig(vocab_size=12, n_embd=16, n_layer=2, n_head=4, n_positions=64),
}  # fmt: skip
WAYS = dict.fromkeys(ARCHITECTURES, CacheUse.SHARED) | {
    "mamba": CacheUse.CACHED, "qwen3_next": CacheUse.CACHED, "bart": CacheUse.CACHED, "openai-gpt": CacheUse.RERUN,
}  # fmt: skip
PROMPTS = [[3, 4, 5, 6, 7], [8], [9, 10, 3]]
RESPONSES = [[[5, 2], [6, 7, 8, 2]], [[4, 4, 4, 4], [2]], [[3, 2], [11, 10, 2]]]
TEMPERATURE = 0.7
Make = Callable[..., PreTrainedModel]


def alive(model: PreTrainedModel) -> PreTrainedModel:
    """With noise on all weights: no norm is the identity, no bias and no embedding zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def trajectories(prompts: list[list[int]], responses: list[list[list[int]]], extra: int = 0) -> Trajectories:
    """Padded by `extra` columns more than needed, with ids that are also tokens."""
    width = max(len(p) for p in prompts) + extra
    prompt_ids, prompt_mask = (x[:-1] for x in pad([*prompts, [0] * width], 7, "left"))
    flat = [r for group in responses for r in group]
    widest = [0] * (max(len(r) for r in flat) + extra)
    ids, mask = (x[:-1] for x in pad([*flat, widest], 5, "right"))
    N, K = len(prompts), len(responses[0])
    ids, mask = ids.view(N, K, -1), mask.view(N, K, -1)
    return Trajectories(
        prompt_ids, prompt_mask, ids, mask, torch.zeros(ids.shape), torch.ones(N, K, dtype=torch.bool)
    )


def one_by_one(model: PreTrainedModel, prompt: list[int], response: list[int]) -> tuple[torch.Tensor, ...]:
    """Log-probs and entropies of a response, and the hidden states of all inputs that predict, unbatched."""
    ids = torch.tensor([prompt + response])
    log_probs = (model(input_ids=ids, use_cache=False).logits[0, :-1] / TEMPERATURE).log_softmax(-1)
    rows = log_probs[len(prompt) - 1 :]
    picked = rows.gather(1, torch.tensor(response)[:, None]).squeeze(1)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]
    return picked, -(rows.exp() * rows).sum(-1), hidden


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_way(make_policy: Make, family: str) -> None:
    assert cache_use(make_policy(ARCHITECTURES[family])) is WAYS[family]


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("extra", [0, 3])
def test_equals_each_sequence_on_its_own(make_policy: Make, family: str, extra: int) -> None:
    model = alive(make_policy(ARCHITECTURES[family]))
    out = policy_forward(model, trajectories(PROMPTS, RESPONSES, extra), TEMPERATURE)
    for n, prompt in enumerate(PROMPTS):
        for k, response in enumerate(RESPONSES[n]):
            log_probs, entropy, hidden = one_by_one(model, prompt, response)
            P, R = len(prompt), len(response)
            torch.testing.assert_close(out.log_probs_NKR[n, k, :R], log_probs, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.entropy_NKR[n, k, :R], entropy, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.prompt_hidden_NPD[n, -P:], hidden[:P], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.response_hidden_NKRD[n, k, : R - 1], hidden[P:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_gradients_equal_those_of_each_sequence_on_its_own(make_policy: Make, family: str) -> None:
    """The whole gradient, and each parameter's part of it to 1e-4 of the whole.

    Relative to the part itself, a key's bias has no gradient to compare: attention does not depend on it, and what
    comes out are two roundings of 0 (OPT, BART, and all families whose keys have a bias of their own).
    """
    model = alive(make_policy(ARCHITECTURES[family]))
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
    whole = torch.cat([p.flatten() for p in apart]).norm()
    for a, b in zip(shared, apart, strict=True):
        assert (a - b).norm() < 1e-4 * whole


def test_a_keys_bias_has_no_gradient(make_policy: Make) -> None:
    model = alive(make_policy(ARCHITECTURES["opt"])).double()
    t = trajectories(PROMPTS, RESPONSES)
    (policy_forward(model, t, TEMPERATURE).log_probs_NKR * t.response_mask_NKR).sum().backward()
    attention = model.model.decoder.layers[0].self_attn
    assert attention.k_proj.bias.grad.norm() < 1e-12 * attention.q_proj.bias.grad.norm()


def test_responses_of_one_token(make_policy: Make) -> None:
    model = make_policy()
    out = policy_forward(model, trajectories(PROMPTS, [[[2], [3]]] * 3), TEMPERATURE)
    assert out.response_hidden_NKRD.shape == (3, 2, 0, 16)
    for n, prompt in enumerate(PROMPTS):
        expected, _, _ = one_by_one(model, prompt, [3])
        torch.testing.assert_close(out.log_probs_NKR[n, 1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite", "llama"])
def test_chunks_of_its_own_output_path_change_nothing(make_policy: Make, family: str) -> None:
    """Two tokens of twelve at a time, and again in the backward."""
    model = alive(make_policy(ARCHITECTURES[family])).double()
    found = []
    for max_elements in (2**26, 2 * 12):
        torch.manual_seed(0)
        hidden_ND = torch.randn(12, 16, dtype=torch.float64, requires_grad=True)
        ids_N = torch.randint(12, (12,))
        log_probs_N, entropy_N = token_log_probs(
            hidden_ND, lambda h: own_logits(model, h), ids_N, TEMPERATURE, 12, max_elements=max_elements
        )
        gradients = torch.autograd.grad(log_probs_N.square().sum(), [hidden_ND, model.lm_head.weight])
        found.append([log_probs_N.detach(), entropy_N, *gradients])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("family", "width"), [("llama", 16), ("opt", 8), ("mamba", 16)])
def test_width_is_that_of_the_hidden_states(make_policy: Make, family: str, width: int) -> None:
    model = make_policy(ARCHITECTURES[family])
    out = policy_forward(model, trajectories(PROMPTS, RESPONSES), TEMPERATURE)
    assert hidden_width(model) == width == out.prompt_hidden_NPD.shape[-1] == out.response_hidden_NKRD.shape[-1]


class TestIdsThatNoTokenHas:
    """An embedding of 12 rows, of which 3 belong to no token: two behind the vocabulary's end and a hole."""

    UNUSED = torch.tensor([i in (4, 10, 11) for i in range(12)])
    RESPONSES = ([[5, 2], [6, 7, 8, 2]], [[3, 3, 3, 3], [2]], [[3, 2], [1, 9, 2]])

    @pytest.fixture
    def model(self, make_policy: Make) -> PreTrainedModel:
        model = alive(make_policy())
        model.unused_ids_V = self.UNUSED
        return model

    def test_they_have_no_part_in_any_distribution(self, model: PreTrainedModel) -> None:
        prompt, response = PROMPTS[0], self.RESPONSES[0][1]
        out = policy_forward(model, trajectories(PROMPTS, list(self.RESPONSES)), TEMPERATURE)
        logits_RV = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        log_probs_RV = (logits_RV[:, ~self.UNUSED] / TEMPERATURE).log_softmax(-1)
        columns = torch.tensor([int((~self.UNUSED[:i]).sum()) for i in response])[:, None]
        torch.testing.assert_close(out.log_probs_NKR[0, 1], log_probs_RV.gather(1, columns).squeeze(1))
        torch.testing.assert_close(out.entropy_NKR[0, 1], -(log_probs_RV.exp() * log_probs_RV).sum(-1))
        out.log_probs_NKR.sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        assert not model.lm_head.weight.grad[self.UNUSED].any()

    def test_a_twin_knows_them_and_no_checkpoint_does(self, model: PreTrainedModel) -> None:
        assert torch.equal(unused_ids(frozen_twin(model)), self.UNUSED)
        assert not any("unused" in name for name, _ in [*model.named_buffers(), *model.state_dict().items()])


class TestHiddenStates:
    @pytest.mark.parametrize("size", [1, 2, 4, 6])
    def test_rows_do_not_depend_on_the_microbatches_that_stored_them(self, make_policy: Make, size: int) -> None:
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
        N, K, P, R, D = 3, 2, *t.prompt_ids_NP.shape[1:], t.response_ids_NKR.shape[2], 16
        assert hidden.mib * 2**20 == N * (P + K * (R - 1)) * D * 2
        torch.testing.assert_close(rows[0, :5], out.prompt_hidden_NPD[0].detach().bfloat16(), atol=0, rtol=0)
