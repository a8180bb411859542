"""Whether a reward model's scores are those of the classifier that it was made from, asked when one is loaded.

Axes: B sequences, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from r2m.core.masking import pad
from r2m.errors import UserError, said
from r2m.models.sizes import text_of
from r2m.reward.model import RewardModel

REFUSED_REWARD_MODELS = {
    **dict.fromkeys(
        ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5"),
        "it reads at end tokens, and a response that was cut off has none",
    ),
    **dict.fromkeys(
        ("convbert", "fnet", "mobilebert", "nystromformer", "reformer", "xlnet", "yoso"),
        "padding changes its scores",
    ),
}  # fmt: skip
LENGTHS = 9, 4  # tokens: more than one of each, and padding


def reward_model_refusal(hf_config: Any) -> str | None:
    """Why models of such a family can't be reward models; None where they may be: `check_reward_model` sees."""
    return REFUSED_REWARD_MODELS.get(hf_config.model_type)


@torch.no_grad()
def check_reward_model(reward: RewardModel, field: str, model: str) -> None:
    """Raises UserError, one line, where the scores of a padded batch are not the model's own of each sequence alone:
    it pools otherwise than at the last token (a mean over tokens), or padding changes its scores."""
    device, config = reward.phi.weight.device, reward.model.config
    random = torch.Generator().manual_seed(0)
    filler = getattr(config, "pad_token_id", None) or 0
    try:
        vocabulary = text_of(config).vocab_size
        ids = [torch.randint(vocabulary, (length,), generator=random) for length in LENGTHS]
        ids = [torch.where(row == filler, (filler + 1) % vocabulary, row) for row in ids]
        batch_BT, mask_BT = pad([row.tolist() for row in ids], filler, "right")
        scores_B = reward(batch_BT.to(device), mask_BT.to(device)).cpu()
        own = [reward.model(input_ids=row[None].to(device)).logits[0].float().cpu() for row in ids]
    except Exception as error:  # whatever a family's own code raises
        raise UserError(f"{field} = {model!r}: it can't be used as a reward model; {said(error)[:200]}") from None
    own_B = torch.cat(own) - getattr(config, "reward_mean", 0.0)
    tolerance = 1e-3 if reward.model.dtype == torch.float32 else 0.1
    if not torch.allclose(scores_B, own_B, rtol=tolerance, atol=tolerance):
        raise UserError(
            f"{field} = {model!r}: read at the last token, two sequences of a padded batch score "
            f"{_listed(scores_B)}; each alone, the model gives {_listed(own_B)}: it can't be used as a reward model"
        )


def _listed(scores_B: Tensor) -> str:
    return " and ".join(f"{score:.3f}" for score in scores_B.tolist())
