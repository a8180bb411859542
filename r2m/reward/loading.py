"""The frozen reward model from a Hugging Face id or folder, and the feedback head beside it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.models.hub import hub_reachable
from r2m.models.loading import check_one_label, fetch, load_config
from r2m.models.saving import make_savable
from r2m.models.weights import check_weights
from r2m.reward import check
from r2m.reward.head_weights import settle_head
from r2m.reward.model import RewardModel

HEAD_FILE = "feedback_head.safetensors"


def load_reward_model(
    model: str, dtype: str = "float32", device: str | torch.device = "cpu", field: str = "reward.model"
) -> tuple[RewardModel, FeedbackHead | None]:
    """The frozen reward model, and the feedback head saved beside it (None where there is none).

    Raises UserError for a model that cannot be had, has not one label, or has weights for a head that is not its
    class's.
    """
    config = load_config(model, field)
    check_one_label(config, field, model)
    check_weights(model, field)
    why = check.reward_model_refusal(config)
    if why is not None:
        raise UserError(f"{field} = {model!r}: {why}")
    precision = getattr(torch, dtype)
    loaded, report = fetch(
        AutoModelForSequenceClassification, field, model, dtype=precision, output_loading_info=True
    )
    if report["missing_keys"]:
        raise UserError(
            f"{field} = {model!r}: no weights for {', '.join(sorted(report['missing_keys'])[:3])}; "
            "train one with `r2m reward-model`"
        )
    offline = not Path(model).is_dir() and not hub_reachable()
    settle_head(loaded, model, report["unexpected_keys"], field, local_files_only=offline)
    make_savable(loaded)
    reward = RewardModel(loaded).eval().requires_grad_(False).to(device)
    check.check_reward_model(reward, field, model)
    return reward, load_feedback_head(Path(model))


def save_feedback_head(folder: Path, head: FeedbackHead) -> None:
    shape = {
        "reward_width": head.score.in_features,
        "policy_width": head.key.in_features,
        "attention_width": head.key.out_features,
        "num_heads": head.num_heads,
        "score_bias": head.score.bias is not None,
    }
    save_file(head.state_dict(), folder / HEAD_FILE, metadata={"shape": json.dumps(shape)})


def load_feedback_head(folder: Path) -> FeedbackHead | None:
    path = folder / HEAD_FILE
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        head = FeedbackHead(**json.loads(file.metadata()["shape"]))
        head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return head
