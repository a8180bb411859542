"""Sampling: reproducible whatever the batch, true to the policy's distribution, ended by end tokens alone.

Axes: N queries, K responses, R response tokens, V vocabulary.
"""

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    CohereConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from r2m.core.trajectories import Trajectories
from r2m.policy.forward import policy_forward
from r2m.policy.sampler import HELD_OUT_STREAM, eos_token_ids, sample, uniform_draws

SMALL = {
    "vocab_size": 12, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
ARCHITECTURES = {
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True),
    "neox": GPTNeoXConfig(**SMALL),
    "gpt2": GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3),
    "gemma2": Gemma2Config(**SMALL, head_dim=4, num_key_value_heads=2, final_logit_softcapping=0.5, sliding_window=4),
    "cohere": CohereConfig(**SMALL, logit_scale=0.3),
    "opt": OPTConfig(
        vocab_size=12, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=8,
        do_layer_norm_before=False, max_position_embeddings=64, init_std=0.3,
    ),
    # With a state of their own, or none: prompts of one length at a time.
    "mamba": MambaConfig(vocab_size=12, hidden_size=16, num_hidden_layers=2, state_size=4, initializer_range=0.3),
    "lfm2": Lfm2Config(**SMALL, num_key_value_heads=2, layer_types=["conv", "full_attention"]),
    "bart": BartConfig(
        vocab_size=12, d_model=16, decoder_layers=2, decoder_ffn_dim=32, decoder_attention_heads=4,
        max_position_embeddings=64, init_std=0.3,
    ),
    "openai-gpt": OpenAIGPTConfig(
        vocab_size=12, n_embd=16, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3
    ),
}  # fmt: skip
PROMPTS = [[3, 4, 5, 6, 7], [8], [9, 10, 3], [4, 4]]
EOS, PAD = [2], 5  # the padding id is an ordinary token too


def model_of(hf_config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(hf_config).eval()


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return model_of(ARCHITECTURES["llama"])


def draw(
    model: PreTrainedModel, uniforms_NKR: Tensor, batch: int = 128, eos: list[int] = EOS, temperature: float = 0.7
) -> Trajectories:  # fmt: skip
    prompts = PROMPTS[: len(uniforms_NKR)]
    return sample(model, prompts, uniforms_NKR, temperature=temperature, eos_ids=eos, pad_id=PAD, batch=batch)


def one_by_one(model: PreTrainedModel, prompt: list[int], uniforms: list[float]) -> tuple[list[int], list[float]]:
    """Inverse transform sampling, with the whole sequence run again for every token."""
    response: list[int] = []
    log_probs: list[float] = []
    for u in uniforms:
        with torch.no_grad():
            logits_V = model(torch.tensor([prompt + response]), use_cache=False).logits[0, -1]
        p_V = (logits_V / 0.7).softmax(-1)
        token = int((p_V.cumsum(-1) <= u).sum())
        response.append(token)
        log_probs.append(float(p_V[token].log()))
        if token in EOS:
            break
    return response, log_probs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_each_response_on_its_own(architecture: str) -> None:
    model = model_of(ARCHITECTURES[architecture])
    uniforms_NKR = uniform_draws(0, 1, 4, 3, 9)
    t = draw(model, uniforms_NKR)
    lengths = set()
    for n, prompt in enumerate(PROMPTS):
        for k in range(3):
            expected, log_probs = one_by_one(model, prompt, uniforms_NKR[n, k].tolist())
            length = len(expected)
            assert t.response_ids_NKR[n, k, :length].tolist() == expected
            assert t.response_mask_NKR[n, k].sum() == length
            assert t.ended_NK[n, k] == (expected[-1] in EOS)
            assert t.sampler_log_probs_NKR[n, k, :length].tolist() == pytest.approx(log_probs, abs=1e-4)
            lengths.add(length)
    assert len(lengths) > 2


@pytest.mark.parametrize("batch", [1, 3, 5, 6, 9, 12])
@pytest.mark.parametrize("architecture", ["llama", "lfm2"])
def test_the_batch_size_changes_nothing(architecture: str, batch: int) -> None:
    model, uniforms_NKR = model_of(ARCHITECTURES[architecture]), uniform_draws(0, 1, 4, 3, 12)
    whole, parts = draw(model, uniforms_NKR), draw(model, uniforms_NKR, batch)
    assert torch.equal(whole.response_ids_NKR, parts.response_ids_NKR)
    assert torch.equal(whole.response_mask_NKR, parts.response_mask_NKR)
    torch.testing.assert_close(whole.sampler_log_probs_NKR, parts.sampler_log_probs_NKR, atol=1e-5, rtol=0)


def test_part_of_the_queries_with_their_draws_is_part_of_the_round(llama: PreTrainedModel) -> None:
    """What lets several workers sample what one would."""
    uniforms_NKR = uniform_draws(0, 1, 4, 3, 12)
    whole = draw(llama, uniforms_NKR)
    own = sample(llama, PROMPTS[1::2], uniforms_NKR[1::2], temperature=0.7, eos_ids=EOS, pad_id=PAD)
    width = own.response_ids_NKR.shape[-1]
    mask = own.response_mask_NKR
    assert torch.equal(own.response_ids_NKR[mask], whole.response_ids_NKR[1::2, :, :width][mask])
    assert torch.equal(own.ended_NK, whole.ended_NK[1::2])


class TestGreedy:
    """ReMax's baseline: one response more in each group, the likeliest token at every position."""

    def test_it_is_the_argmax_of_the_sequence_so_far(self, llama: PreTrainedModel) -> None:
        uniforms_NKR = uniform_draws(0, 1, 4, 3, 9)
        t = sample(llama, PROMPTS, uniforms_NKR, temperature=0.7, eos_ids=EOS, pad_id=PAD, greedy=True)
        for n, prompt in enumerate(PROMPTS):
            response: list[int] = []
            while len(response) < 9 and response[-1:] != EOS:
                with torch.no_grad():
                    logits_V = llama(torch.tensor([prompt + response])).logits[0, -1]
                response.append(int(logits_V.argmax()))
            assert t.response_ids_NKR[n, 3][t.response_mask_NKR[n, 3]].tolist() == response
            assert bool(t.ended_NK[n, 3]) == (response[-1] in EOS)

    @pytest.mark.parametrize("batch", [1, 5, 8, 128])
    def test_the_others_are_what_they_were(self, llama: PreTrainedModel, batch: int) -> None:
        uniforms_NKR = uniform_draws(0, 1, 4, 3, 12)
        plain = draw(llama, uniforms_NKR)
        t = sample(llama, PROMPTS, uniforms_NKR, temperature=0.7, eos_ids=EOS, pad_id=PAD, batch=batch, greedy=True)
        assert t.ended_NK.shape == (4, 4)
        others = t.block(slice(0, 4), slice(0, 3))
        assert torch.equal(others.response_ids_NKR, plain.response_ids_NKR)
        assert torch.equal(others.ended_NK, plain.ended_NK)
        torch.testing.assert_close(others.sampler_log_probs_NKR, plain.sampler_log_probs_NKR, atol=1e-5, rtol=0)

    def test_neither_draws_nor_temperature_decide_it(self, llama: PreTrainedModel) -> None:
        found = [
            sample(
                llama, PROMPTS, uniform_draws(seed, 1, 4, 1, 9), temperature=temperature, eos_ids=EOS, pad_id=PAD,
                greedy=True,
            ).block(slice(0, 4), slice(1, 2)).response_ids_NKR.tolist()
            for seed, temperature in ((0, 0.5), (1, 2.0))
        ]  # fmt: skip
        assert found[0] == found[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_log_probs_are_the_trainers(architecture: str) -> None:
    model = model_of(ARCHITECTURES[architecture])
    t = draw(model, uniform_draws(0, 1, 4, 3, 12))
    with torch.no_grad():
        trained_NKR = policy_forward(model, t, 0.7).log_probs_NKR
    error = (trained_NKR - t.sampler_log_probs_NKR)[t.response_mask_NKR].abs().max()
    assert error < 1e-4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_tokens_follow_the_policy(llama: PreTrainedModel, temperature: float) -> None:
    """Pearson's chi-square of 20,000 draws, 11 degrees of freedom: above 31.3 in one case in a thousand."""
    K = 20_000
    uniforms_NKR = uniform_draws(1, 1, 1, K, 1)
    t = draw(llama, uniforms_NKR, temperature=temperature)
    counts_V = torch.bincount(t.response_ids_NKR.flatten(), minlength=12)
    with torch.no_grad():
        p_V = (llama(torch.tensor([PROMPTS[0]])).logits[0, -1] / temperature).softmax(-1)
    chi_square = ((counts_V - K * p_V).square() / (K * p_V)).sum()
    assert (K * p_V).min() > 5  # else the statistic is not a chi-square
    assert chi_square < 31.3


def test_a_response_ends_at_its_first_end_token_which_it_keeps(llama: PreTrainedModel) -> None:
    t = draw(llama, uniform_draws(0, 1, 4, 8, 12), eos=[2, 7])
    seen = set()
    for ids, mask, ended in zip(
        t.response_ids_NKR.flatten(0, 1), t.response_mask_NKR.flatten(0, 1), t.ended_NK.flatten(), strict=True
    ):
        real = ids[mask].tolist()
        assert mask[: len(real)].all()  # the padding is on the right
        assert not {2, 7} & set(real[:-1])
        assert bool(ended) == (real[-1] in (2, 7))
        assert ended or len(real) == 12
        assert (ids[~mask] == PAD).all()
        seen.add(real[-1])
    assert {2, 7} <= seen
    assert not t.ended_NK.all()


def test_columns_that_nobody_wrote_are_cut_off(llama: PreTrainedModel) -> None:
    """All tokens but one end a response: the draws decide how many are written."""
    t = draw(llama, uniform_draws(0, 1, 4, 2, 40), eos=[i for i in range(12) if i != 9])
    assert t.response_ids_NKR.shape[-1] == t.lengths_NK.max() < 40
    assert t.ended_NK.all()


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_the_ends_of_the_range_of_draws(llama: PreTrainedModel, u: float) -> None:
    """Rounding must not send a draw below the first token or past the last one."""
    t = draw(llama, torch.full((4, 2, 6), u))
    assert (t.response_ids_NKR[t.response_mask_NKR] == (0 if u == 0 else 11)).all()
    assert torch.isfinite(t.sampler_log_probs_NKR).all()


class TestIdsThatNoTokenHas:
    @pytest.fixture
    def model(self) -> PreTrainedModel:
        model = model_of(ARCHITECTURES["llama"])
        model.unused_ids_V = unused_V = torch.tensor([i in (0, 4, 11) for i in range(12)])
        with torch.no_grad():  # the likeliest of all, were they not kept out
            model.lm_head.weight[unused_V] *= 20
        return model

    def test_they_are_never_sampled(self, model: PreTrainedModel) -> None:
        t = draw(model, uniform_draws(0, 1, 4, 200, 12), eos=[])
        assert set(t.response_ids_NKR.unique().tolist()) == set(range(12)) - {0, 4, 11}
        assert torch.isfinite(t.sampler_log_probs_NKR).all()

    def test_nor_are_they_the_likeliest(self, model: PreTrainedModel) -> None:
        t = sample(model, PROMPTS, torch.zeros(4, 1, 12), temperature=1.0, eos_ids=[], pad_id=PAD, greedy=True)
        assert not set(t.response_ids_NKR.unique().tolist()) & {0, 4, 11}

    @pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
    def test_not_even_at_the_ends_of_the_range_of_draws(self, model: PreTrainedModel, u: float) -> None:
        t = draw(model, torch.full((4, 2, 6), u), eos=[])
        assert (t.response_ids_NKR == (1 if u == 0 else 10)).all()

    def test_log_probs_are_the_trainers(self, model: PreTrainedModel) -> None:
        t = draw(model, uniform_draws(0, 1, 4, 3, 12))
        with torch.no_grad():
            trained_NKR = policy_forward(model, t, 0.7).log_probs_NKR
        assert (trained_NKR - t.sampler_log_probs_NKR)[t.response_mask_NKR].abs().max() < 1e-4


class TestDraws:
    def test_they_depend_on_seed_step_and_stream_alone(self) -> None:
        one = uniform_draws(3, 5, 2, 2, 4)
        assert torch.equal(one, uniform_draws(3, 5, 2, 2, 4))
        for other in (
            uniform_draws(4, 5, 2, 2, 4), uniform_draws(3, 6, 2, 2, 4),
            uniform_draws(3, 5, 2, 2, 4, stream=HELD_OUT_STREAM),
        ):  # fmt: skip
            assert not torch.equal(one, other)

    def test_they_leave_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        uniform_draws(0, 1, 2, 2, 4)
        assert torch.equal(before, torch.get_rng_state())

    def test_they_are_uniform(self) -> None:
        draws = uniform_draws(0, 1, 100, 10, 10).flatten()
        assert draws.min() >= 0
        assert draws.max() < 1
        assert draws.mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("listed", "expected"), [(None, (2,)), (2, (2,)), (9, (2, 9)), ([7, 2, 5], (2, 5, 7))])
def test_all_end_tokens(llama: PreTrainedModel, listed: int | list[int] | None, expected: tuple[int, ...]) -> None:
    before = llama.generation_config
    llama.generation_config = GenerationConfig(eos_token_id=listed)
    assert eos_token_ids(llama, 2) == expected
    llama.generation_config = before
