"""The reward model: a frozen backbone that gives the reward token embedding, and the scoring layer φ on it.

Axes: B sequences, T tokens, D width.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from r2m.config import Policy
from r2m.models.families import text_of
from r2m.models.loading import check_one_label
from r2m.policy.zero import Spread


class RewardModel(nn.Module):
    """Any `AutoModelForSequenceClassification` with one label (App. G.1).

    H_last is what enters the model's last one-output linear layer, so a Llama's `score` and a BERT's `classifier`
    need no code of their own. Where that layer sees the whole sequence, it is read at the token that the model was
    trained at: the last real one, unless the model's configuration names that as padding. (Trainers pad with the
    end token where a tokenizer has no padding, TRL's too: transformers' pooling then reads one token earlier.)
    `phi` is that layer; `config.reward_mean`, the mean reward of SFT samples, is folded into its bias. `seen`: the
    99 % quantile of its scores, so centred, on data like those that it was trained on; None where nothing says it.

    Raises UserError for a model with other than one label.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        check_one_label(model.config, "reward.model", str(model.config.name_or_path))
        self.model = model
        _, self._score = score_layer(model)
        self.phi = nn.Linear(self._score.in_features, 1, device=self._score.weight.device)
        with torch.no_grad():
            self.phi.weight.copy_(self._score.weight.float())
            bias = 0.0 if self._score.bias is None else self._score.bias.float()
            self.phi.bias.copy_(bias - getattr(model.config, "reward_mean", 0.0))
        self.seen: float | None = getattr(model.config, "reward_seen", None)
        self.width = self._score.in_features
        self._padding = getattr(text_of(model.config), "pad_token_id", None)
        self._spread: Spread | None = None

    def spread(self, settings: Policy, device: torch.device | str) -> None:
        """Spread the model over the workers, as `settings` say: no device holds all of its weights. All workers then
        embed equally many batches."""
        self._spread = Spread(self.model, self.model, settings, device)
        self.phi.to(device)

    def whole(self) -> AbstractContextManager[PreTrainedModel]:
        """The model with all weights on this worker. All workers enter and leave."""
        return nullcontext(self.model) if self._spread is None else self._spread.whole()

    def embed(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Reward token embeddings H_last, fp32 [B, D], of right-padded sequences (Sec. 4.1)."""
        caught: list[Tensor] = []
        config = self.model.config
        # The model's own pooling, which is not used here, asks for some padding.
        without = [p for p in (config, text_of(config)) if getattr(p, "pad_token_id", None) is None]
        for part in without:
            part.pad_token_id = 0
        handle = self._score.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        run = self.model if self._spread is None else self._spread.engine
        try:
            run(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False)
        finally:
            handle.remove()
            for part in without:
                part.pad_token_id = None
        (H,) = caught
        if H.dim() == 3:
            read_BT = mask_BT if self._padding is None else mask_BT & (ids_BT != self._padding)
            at_B = (read_BT * torch.arange(mask_BT.shape[1], device=H.device)).argmax(-1)
            H = H[torch.arange(len(H), device=H.device), at_B]
        return H.float()

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Rewards_B of right-padded sequences, fp32: r_φ(x, y) = φ(H_last)."""
        return self.phi(self.embed(ids_BT, mask_BT)).squeeze(-1)


def score_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """The layer that gives the score, the last linear one of one output, and its name."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    assert layers, "a sequence classifier with one label ends in a linear layer of one output"
    return layers[-1]
