"""algorithm.advantage=grpo against the GRPOTrainer of TRL 1.16 itself, with the loss of GRPO's paper.

The paper's loss (loss_type="grpo"): a ratio a token, the mean over a response's tokens, then over responses, and k3
in the loss. Axes: B trajectories (2 queries by K = 4), T response tokens.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from test_trl_loss import (
    BETA,
    MAX_TOKENS,
    PAD,
    PROMPTS,
    RESPONSES,
    REWARDS,
    TEMPERATURE,
    TOLERANCE,
    K,
    gradients,
    move,
    ours,
    save_tiny_llama,
)
from trl import GRPOConfig, GRPOTrainer

from r2m.core.advantages import grpo
from r2m.core.masking import pad
from r2m.core.policy_loss import policy_loss

TEXTS = [" ".join(f"w{token}" for token in prompt) for prompt in PROMPTS]


class FixedCompletions(GRPOTrainer):
    """The trainer with its sampling, and nothing else, replaced."""

    def _generate_single_turn(self, *_: Any) -> Any:
        return RESPONSES, None


@pytest.fixture
def make(tmp_path: Path):
    def trainer(rewards: list[float]) -> FixedCompletions:
        save_tiny_llama(tmp_path)
        arguments = GRPOConfig(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=len(RESPONSES),
            num_generations=K,
            max_completion_length=MAX_TOKENS,
            temperature=TEMPERATURE,
            beta=BETA,
            epsilon=0.2,
            loss_type="grpo",
            use_bias_correction_kl=False,  # TRL's addition: k3 weighted by the ratio
            num_iterations=2,  # keeps the old policy's log-probs
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
        )
        built = FixedCompletions(
            model=str(tmp_path),
            reward_funcs=lambda **_: rewards,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": TEXTS}),
        )
        built.model.train()
        built.current_gradient_accumulation_steps = 1  # which its training loop would set
        move(built.model, 0.05, seed=1)
        return built

    return trainer


def annotate(trainer: FixedCompletions) -> dict[str, Any]:
    return trainer._generate_and_score_completions([{"prompt": text} for text in TEXTS for _ in range(K)])


@pytest.mark.parametrize("drift", [0.0, 0.02], ids=["on-policy", "off-policy"])
def test_advantages_loss_and_gradients(make, drift: float) -> None:
    trainer = make(REWARDS)
    _, mask_BT = pad(RESPONSES, PAD, "right")
    with torch.no_grad():
        old_log_probs_BT, _ = ours(trainer.model)
        ref_log_probs_BT, _ = ours(trainer.ref_model)
    advantages_B = grpo(torch.tensor(REWARDS).view(-1, K)).flatten()
    inputs = annotate(trainer)
    torch.testing.assert_close(advantages_B, inputs["advantages"], **TOLERANCE)

    move(trainer.model, drift, seed=2)
    their_loss = trainer.compute_loss(trainer.model, inputs)
    their_gradients = gradients(trainer.model, their_loss)
    log_probs_BT, _ = ours(trainer.model)
    result = policy_loss(
        log_probs_BT, old_log_probs_BT, ref_log_probs_BT, advantages_B, mask_BT, beta=BETA, kl_estimator="k3",
        loss_aggregation="sequence_mean_token_mean",
    )  # fmt: skip
    torch.testing.assert_close(result.loss.detach(), their_loss.detach(), **TOLERANCE)
    torch.testing.assert_close(gradients(trainer.model, result.loss), their_gradients, **TOLERANCE)
    if drift:
        assert 0 < result.clipped_terms < result.terms


def test_a_group_without_spread(make) -> None:
    rewards = [0.7] * K + REWARDS[K:]
    theirs = annotate(make(rewards))["advantages"]
    advantages_B = grpo(torch.tensor(rewards).view(-1, K)).flatten()
    assert advantages_B[:K].tolist() == [0.0] * K
    torch.testing.assert_close(advantages_B[:K], theirs[:K], rtol=0, atol=1e-2)  # theirs: rounding errors / 1e-4
    torch.testing.assert_close(advantages_B[K:], theirs[K:], **TOLERANCE)
