"""What a reward model's last layer has seen in training: Σ e eᵀ over its training responses, in a file beside it.

Axes: D width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from r2m.core.masking import pad
from r2m.core.reshaping import precision
from r2m.errors import UserError
from r2m.reward.model import RewardModel

FEATURES_FILE = "training_features.safetensors"
RIDGE = 1.0  # of M = ridge I + Σ e eᵀ: what an unseen direction counts as having been seen


@torch.no_grad()
def second_moment(model: RewardModel, sequences: Sequence[list[int]], pad_id: int, batch_size: int) -> Tensor:
    """Σ e eᵀ, [D, D], fp32, over sequences that end in a response's last token; e is the embedding that φ reads."""
    device = model.phi.weight.device
    total = torch.zeros(model.width, model.width, dtype=torch.float64, device=device)
    for i in range(0, len(sequences), batch_size):
        ids_BT, mask_BT = pad(sequences[i : i + batch_size], pad_id, "right")
        e_BD = model.embed(ids_BT.to(device), mask_BT.to(device)).double()
        total += e_BD.T @ e_BD
    return total.float()


def save_features(folder: Path, moment_DD: Tensor) -> None:
    save_file({"moment": moment_DD.cpu().contiguous()}, folder / FEATURES_FILE)


def load_precision(folder: Path, width: int, device: torch.device | str) -> Tensor:
    """M⁻¹, [D, D]. Raises UserError where the folder has no features of a model of this width."""
    path = folder / FEATURES_FILE
    if not path.is_file():
        raise UserError(
            f"reward.uncertainty: {str(folder)!r} has no {FEATURES_FILE}; train the reward model by "
            "`r2m reward-model --features`"
        )
    moment_DD = load_file(path)["moment"]
    if len(moment_DD) != width:
        raise UserError(
            f"reward.uncertainty: {str(path)!r} is of a reward model of width {len(moment_DD)}, not {width}"
        )
    return precision(moment_DD, RIDGE).to(device)
