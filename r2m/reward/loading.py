"""The vanilla reward model from a Hugging Face id or folder, whether its scores are its classifier's own, and the
feedback head beside it."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from r2m.core.feedback_head import FeedbackHead
from r2m.core.masking import pad
from r2m.errors import UserError, said
from r2m.models.families import reward_model_refusal, text_of
from r2m.models.loading import check_one_label, fetch, load_config, only_cached
from r2m.models.saving import make_savable
from r2m.models.weights import check_weights
from r2m.reward.model import RewardModel, score_layer

HEAD_FILE = "feedback_head.safetensors"
LENGTHS = 9, 4  # tokens: more than one of each, and padding
# What a reward model may have been made from and does not use: the language model's own output, BERT's pooler,
# layers that predict further tokens; and buffers that older versions of transformers saved.
HARMLESS = re.compile(
    r"(^|\.)(lm_head|embed_out|cls|generator_lm_head|generator_predictions|pooler|mtp)\.|^decoder\.bias$"
    r"|(^|\.)(inv_freq|masked_bias|position_ids|(attn|attention)\.bias)$"
)


def load_reward_model(
    model: str, dtype: str = "float32", device: str | torch.device = "cpu", field: str = "reward.model"
) -> tuple[RewardModel, FeedbackHead | None]:
    """The vanilla reward model, and the feedback head saved beside it (None where there is none).

    Raises UserError for a model that cannot be had, has not one label, or has weights for a head that is not its
    class's.
    """
    config = load_config(model, field)
    check_one_label(config, field, model)
    check_weights(model, field)
    if why := reward_model_refusal(config):
        raise UserError(f"{field} = {model!r}: {why}")
    options = {"dtype": getattr(torch, dtype), "output_loading_info": True}
    loaded, report = fetch(AutoModelForSequenceClassification, field, model, **options)
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UserError(f"{field} = {model!r}: no weights for {missing}; train one with `r2m reward-model`")
    settle_head(loaded, model, report["unexpected_keys"], field, local_files_only=only_cached(model))
    make_savable(loaded)
    reward = RewardModel(loaded).eval().requires_grad_(False).to(device)
    check_reward_model(reward, field, model)
    return reward, load_feedback_head(Path(model))


def settle_head(model: PreTrainedModel, path: str, unexpected: Collection[str], field: str, **hub: Any) -> None:
    """Give the score layer the bias that the checkpoint at `path` has for it. `unexpected`: names of weights that
    were not loaded; `hub`: as for `cached_file`.

    Raises UserError where any other of them may be part of a head: the scores would be another model's.
    """
    name, layer = score_layer(model)
    bias = f"{name}.bias"
    unknown = [key for key in sorted(unexpected) if key != bias and not HARMLESS.search(key)]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(
            f"{field} = {path!r}: its checkpoint has {', '.join(unknown[:3])}{more}, which {type(model).__name__} "
            "has no place for; without them the scores would not be its own"
        )
    if bias in unexpected:
        stored = _stored(path, bias, field, **hub)
        layer.bias = nn.Parameter(stored.to(layer.weight).view(1), requires_grad=layer.weight.requires_grad)


def _stored(path: str, key: str, field: str, **hub: Any) -> Tensor:
    """One tensor of a checkpoint."""
    options = hub | {"_raise_exceptions_for_missing_entries": False}
    name = SAFE_WEIGHTS_NAME
    if index := cached_file(path, SAFE_WEIGHTS_INDEX_NAME, **options):
        name = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].get(key, name)
    if weights := cached_file(path, name, **options):
        with safe_open(weights, "pt") as tensors:
            if key in tensors.keys():  # noqa: SIM118
                return tensors.get_tensor(key)
    raise UserError(f"{field} = {path!r}: its {key} is not in safetensors; save it anew by save_pretrained")


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
        batch, alone = (" and ".join(f"{score:.3f}" for score in scores.tolist()) for scores in (scores_B, own_B))
        raise UserError(
            f"{field} = {model!r}: read at the last token, two sequences of a padded batch score {batch}; each "
            f"alone, the model gives {alone}: it can't be used as a reward model"
        )


def save_feedback_head(folder: Path, head: FeedbackHead) -> None:
    shape = {
        "reward_width": head.score.in_features, "policy_width": head.key.in_features,
        "attention_width": head.key.out_features, "num_heads": head.num_heads,
        "score_bias": head.score.bias is not None,
    } | ({} if head.residual else {"residual": False})  # fmt: skip
    save_file(head.state_dict(), folder / HEAD_FILE, metadata={"shape": json.dumps(shape)})


def load_feedback_head(folder: Path) -> FeedbackHead | None:
    path = folder / HEAD_FILE
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        head = FeedbackHead(**json.loads(file.metadata()["shape"]))
        head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return head
