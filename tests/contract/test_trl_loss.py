"""TRL_RLOO against the RLOOTrainer of TRL 1.16 itself.

The trainer annotates and trains a tiny Llama on completions that are fixed instead of sampled: ragged, some
cut off without an end token. Its log-probs, entropies, advantages, loss and gradients must be ours.

Axes: B trajectories (2 queries by K = 4), P prompt tokens, T response tokens, D width.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import RLOOConfig, RLOOTrainer

from r2m.core.advantages import rloo
from r2m.core.masking import pad, positions, token_log_probs
from r2m.core.policy_loss import TRL_RLOO, kl_in_reward, policy_loss

VOCABULARY = 24
PAD, EOS = 0, 1
K = 4
MAX_TOKENS = 6
TEMPERATURE = 0.7
BETA = 0.05
PROMPTS = [[5, 6, 7, 8], [9, 10]]
RESPONSES = [
    [11, 12, EOS],
    [13, 14, 15, 16, 17, 18],  # cut off
    [EOS],
    [19, 20, 21, 22, EOS],
    [11, 13, 12, 14, 23, EOS],
    [12, EOS],
    [15, 15, 15, 15, 15, 15],  # cut off
    [20, 19, 18, EOS],
]
REWARDS = [1.0, -0.5, 0.25, 2.0, -1.0, 0.0, 3.0, 0.5]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


class FixedCompletions(RLOOTrainer):
    """The trainer with its sampling, and nothing else, replaced."""

    def _generate_single_turn(self, *_: Any) -> list[list[int]]:
        return RESPONSES


def fixed_rewards(**_: Any) -> list[float]:
    return REWARDS


def save_tiny_llama(folder: Path) -> None:
    vocabulary = {"<pad>": PAD, "<eos>": EOS} | {f"w{i}": i for i in range(2, VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w2"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="w2")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.2,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def move(model: torch.nn.Module, size: float, seed: int) -> None:
    """A step of the policy: away from the reference, or off its own samples."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def trainer(tmp_path: Path) -> FixedCompletions:
    save_tiny_llama(tmp_path)
    arguments = RLOOConfig(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=len(RESPONSES),
        num_generations=K,
        max_completion_length=MAX_TOKENS,
        temperature=TEMPERATURE,
        beta=BETA,
        epsilon=TRL_RLOO["clip_low"],
        epsilon_high=TRL_RLOO["clip_high"],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
    )
    prompts = [" ".join(f"w{token}" for token in prompt) for prompt in PROMPTS]
    trainer = FixedCompletions(
        model=str(tmp_path),
        reward_funcs=fixed_rewards,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    )
    trainer.model.train()
    move(trainer.model, 0.05, seed=1)
    return trainer


def annotate(trainer: FixedCompletions) -> dict[str, Tensor]:
    prompts = [" ".join(f"w{token}" for token in prompt) for prompt in PROMPTS]
    return trainer._generate_and_score_completions([{"prompt": text} for text in prompts for _ in range(K)])


def ours(model: Any) -> tuple[Tensor, Tensor]:
    """log_probs_BT and entropy_BT of the responses under a causal language model."""
    prompt_ids_BP, prompt_mask_BP = pad([prompt for prompt in PROMPTS for _ in range(K)], PAD, "left")
    ids_BT, mask_BT = pad(RESPONSES, PAD, "right")
    attention_mask = torch.cat([prompt_mask_BP, mask_BT], dim=-1)
    hidden = model.model(
        input_ids=torch.cat([prompt_ids_BP, ids_BT], dim=-1),
        attention_mask=attention_mask,
        position_ids=positions(attention_mask),
    ).last_hidden_state
    hidden_BTD = hidden[:, prompt_ids_BP.shape[1] - 1 : -1]
    return token_log_probs(hidden_BTD, model.lm_head, ids_BT, TEMPERATURE, VOCABULARY)


def gradients(model: torch.nn.Module, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_log_probs_and_entropies(trainer: FixedCompletions) -> None:
    ids_BT, mask_BT = pad(RESPONSES, PAD, "right")
    inputs = annotate(trainer)
    assert inputs["completion_ids"].tolist() == ids_BT.tolist()
    theirs_BT, their_entropy_BT, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
        logits_to_keep=ids_BT.shape[1],
        compute_entropy=True,
    )
    log_probs_BT, entropy_BT = ours(trainer.model)
    torch.testing.assert_close(log_probs_BT[mask_BT], theirs_BT[mask_BT], **TOLERANCE)
    torch.testing.assert_close(entropy_BT[mask_BT], their_entropy_BT[mask_BT].detach(), **TOLERANCE)
    old_log_probs_B = (log_probs_BT * mask_BT).sum(-1)
    torch.testing.assert_close(old_log_probs_B.detach(), inputs["old_logps"], **TOLERANCE)


@pytest.mark.parametrize("drift", [0.0, 0.02], ids=["on-policy", "off-policy"])
def test_advantages_loss_and_gradients(trainer: FixedCompletions, drift: float) -> None:
    _, mask_BT = pad(RESPONSES, PAD, "right")
    with torch.no_grad():
        old_log_probs_BT, _ = ours(trainer.model)
        ref_log_probs_BT, _ = ours(trainer.ref_model)
    rewards_B = kl_in_reward(
        torch.tensor(REWARDS), old_log_probs_BT, ref_log_probs_BT, mask_BT, BETA, TRL_RLOO["kl_estimator"]
    )
    advantages_B = rloo(rewards_B.view(-1, K)).flatten()
    inputs = annotate(trainer)
    torch.testing.assert_close(advantages_B, inputs["advantages"], **TOLERANCE)
    without_kl_B = rloo(torch.tensor(REWARDS).view(-1, K)).flatten()
    assert (advantages_B - without_kl_B).abs().max() > 0.01  # else the KL would go untested

    move(trainer.model, drift, seed=2)
    their_loss = trainer.compute_loss(trainer.model, inputs)
    their_gradients = gradients(trainer.model, their_loss)
    log_probs_BT, _ = ours(trainer.model)
    result = policy_loss(
        log_probs_BT, old_log_probs_BT, ref_log_probs_BT, advantages_B, mask_BT, beta=BETA, **TRL_RLOO
    )
    our_gradients = gradients(trainer.model, result.loss)

    torch.testing.assert_close(result.loss.detach(), their_loss.detach(), **TOLERANCE)
    torch.testing.assert_close(our_gradients.norm(), their_gradients.norm(), **TOLERANCE)
    torch.testing.assert_close(our_gradients, their_gradients, **TOLERANCE)
    their_clip_fraction = trainer._metrics["train"]["clip_ratio/region_mean"][-1]
    assert (result.clipped_terms / result.terms).item() == pytest.approx(their_clip_fraction)
    if drift:  # some terms clipped, some not, or the clip would go untested
        assert 0 < result.clipped_terms < result.terms == len(RESPONSES)
        assert result.loss.abs() > 0.01
    else:
        assert result.max_ratio_deviation < 1e-5
        assert result.loss.abs() < 1e-6  # balanced groups
