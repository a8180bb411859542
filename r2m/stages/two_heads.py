"""ODIN in a reward model's training: a second head takes what correlates with a named feature, and is left behind.

Chen et al., 2024, arXiv 2402.07319: both heads read the same features; the pairs are ranked by their sum, the
feature's head is made to correlate with the feature and the quality's not to, and their weights are made orthogonal.
After training only the quality's head is there: an ordinary reward model.

Axes: B responses, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.core.odin import feature_loss, orthogonality_loss
from r2m.core.seeds import generator
from r2m.reward.model import score_layer
from r2m.tasks.encoding import encode

FEATURE_WEIGHT = ORTHOGONALITY_WEIGHT = 1.0  # λ_L, λ_O

# Of a response, without its prompt.
FEATURES: dict[str, Callable[[PreTrainedTokenizerBase, str], float]] = {
    "length": lambda tokenizer, text: float(len(encode(tokenizer, text))),  # tokens, the paper's
    "spaces": lambda tokenizer, text: text.count(" ") / max(1, len(text)),  # share of its characters
}


@contextmanager
def two_heads(model: PreTrainedModel, seed: int) -> Iterator[nn.Linear]:
    """The model with two scores, quality's and the feature's, by one layer [2, D] in the place of its own; quality's
    part is its own again at the end."""
    name, own = score_layer(model)
    parent, _, last = name.rpartition(".")
    both = nn.Linear(own.in_features, 2, bias=False, device=own.weight.device, dtype=own.weight.dtype)
    with torch.no_grad():
        both.weight[0] = own.weight[0]
        nn.init.normal_(both.weight[1:], std=own.in_features**-0.5, generator=generator("odin", seed, 0))
    setattr(model.get_submodule(parent), last, both)
    try:
        yield both
    finally:
        with torch.no_grad():
            own.weight[0] = both.weight[0]
        setattr(model.get_submodule(parent), last, own)


def odin_loss(ranking: Tensor, scores_B2: Tensor, feature_B: Tensor, heads: nn.Linear) -> Tensor:
    """L_R + λ_L L_L + λ_O L_O; `ranking` is that of the sum of both heads' scores."""
    quality_B, feature_head_B = scores_B2.unbind(-1)
    apart = feature_loss(quality_B, feature_head_B, feature_B)
    return ranking + FEATURE_WEIGHT * apart + ORTHOGONALITY_WEIGHT * orthogonality_loss(heads.weight)
