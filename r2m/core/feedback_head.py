"""The reward model's scoring head with policy feedback (Sec. 4.1).

Axes: B trajectories, T tokens, D width (D_rm the reward model's, D_p the policy's), H attention heads of
width W, A = H W.
"""

import math

import torch
from torch import Tensor, nn

# An untrained CrossAttention(H, h) has this share of the root mean square of the attention-weighted mean of h.
# Small, so that the untrained head stays near the vanilla reward; not 0, which would leave query, key and
# value without a gradient.
OUTPUT_GAIN = 0.02


class FeedbackHead(nn.Module):
    """Scores φ(H + (1 - ω) CrossAttention(H, h)): Eq. 3 with the residual Ĥ = H + CrossAttention(H, h); without it,
    Ĥ = CrossAttention(H, h), φ(ω H + (1 - ω) CrossAttention(H, h)).

    H is the reward token embedding, the attention's one query; h are the policy's last-layer hidden states,
    its keys and values. With one query the projections fold: logits = (W_kᵀ q)·h and context = W_v Σ a h are
    what attention over explicit keys and values gives, without a key or a value of width A for each token.

    Args:
        reward_width: D_rm.
        policy_width: D_p.
        attention_width: A (2048 in Sec. 5.1).
        num_heads: H.
        score_bias: whether φ has a bias.
        residual: whether Ĥ has H in it.
        output_gain: the output projection's initial scale, of the usual 1 / √A.
        generator: source of the initial weights; the global one by default.

    Raises:
        ValueError: attention_width is no multiple of num_heads.
    """

    def __init__(
        self,
        reward_width: int,
        policy_width: int,
        attention_width: int = 2048,
        num_heads: int = 16,
        *,
        score_bias: bool = False,
        residual: bool = True,
        output_gain: float = OUTPUT_GAIN,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or attention_width % num_heads:
            raise ValueError(
                f"attention_width is {attention_width}, allowed: a multiple of num_heads = {num_heads} >= 1"
            )
        self.num_heads, self.residual = num_heads, residual
        self.query = nn.Linear(reward_width, attention_width, bias=False)
        self.key = nn.Linear(policy_width, attention_width, bias=False)
        self.value = nn.Linear(policy_width, attention_width, bias=False)
        self.output = nn.Linear(attention_width, reward_width, bias=False)
        self.score = nn.Linear(reward_width, 1, bias=score_bias)
        for linear in (self.query, self.key, self.value, self.output, self.score):
            gain = output_gain if linear is self.output else 1.0
            nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features), generator=generator)
        if score_bias:
            nn.init.zeros_(self.score.bias)

    @classmethod
    def from_score(
        cls,
        score: nn.Linear,
        policy_width: int,
        attention_width: int = 2048,
        num_heads: int = 16,
        *,
        residual: bool = True,
        output_gain: float = OUTPUT_GAIN,
        generator: torch.Generator | None = None,
    ) -> "FeedbackHead":
        """A head whose φ is a copy of a reward model's score layer, bias included; fp32, on the CPU.

        Raises:
            ValueError: score has not exactly one output, or as for the class.
        """
        if score.out_features != 1:
            raise ValueError(f"score has {score.out_features} outputs, allowed: 1")
        has_bias = score.bias is not None
        widths = (score.in_features, policy_width, attention_width)
        head = cls(
            *widths, num_heads, score_bias=has_bias, residual=residual, output_gain=output_gain, generator=generator
        )
        with torch.no_grad():
            head.score.weight.copy_(score.weight)
            if has_bias:
                head.score.bias.copy_(score.bias)
        return head

    def forward(self, reward_token_B: Tensor, hidden_BTD: Tensor, mask_BT: Tensor, omega: float) -> Tensor:
        """Rewards of B trajectories.

        Args:
            reward_token_B: H, B embeddings of width D_rm. Any float type: the head computes in its own.
            hidden_BTD: h, width D_p, finite at padding too. Any float type.
            mask_BT: true where h is of the trajectory, false at padding. The attention of an empty row is 0.
            omega: ω of Eq. 3, the weight of H. At 1 the reward is φ(H) exactly, and only φ is computed.

        Returns:
            Rewards B, in the head's float type.

        Raises:
            ValueError: omega outside [0, 1].
        """
        if not 0 <= omega <= 1:
            raise ValueError(f"omega is {omega}, allowed: 0 to 1")
        reward_token_B = reward_token_B.to(self.score.weight.dtype)
        if omega < 1:
            attended_BD = self.cross_attention(reward_token_B, hidden_BTD, mask_BT)
            kept_B = reward_token_B if self.residual else omega * reward_token_B
            reward_token_B = kept_B + (1 - omega) * attended_BD
        return self.score(reward_token_B).squeeze(-1)

    def cross_attention(self, reward_token_B: Tensor, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """CrossAttention(H, h), B by D_rm. Arguments as for `forward`."""
        dtype = self.key.weight.dtype
        hidden_BTD = hidden_BTD.to(dtype)
        padding_B1T = ~mask_BT.bool().unsqueeze(1)
        query_BHW = self.query(reward_token_B.to(dtype)).unflatten(-1, (self.num_heads, -1))
        key_HWD = self.key.weight.unflatten(0, (self.num_heads, -1))
        value_HWD = self.value.weight.unflatten(0, (self.num_heads, -1))

        scaled_BHW = query_BHW / math.sqrt(query_BHW.shape[-1])
        folded_query_BHD = torch.einsum("bhw,hwd->bhd", scaled_BHW, key_HWD)
        logits_BHT = folded_query_BHD @ hidden_BTD.mT
        # A finite fill, then zeros: in a row that is all padding, -inf would make the softmax NaN.
        logits_BHT = logits_BHT.masked_fill(padding_B1T, torch.finfo(logits_BHT.dtype).min)
        attention_BHT = logits_BHT.softmax(-1).masked_fill(padding_B1T, 0.0)
        context_BHD = attention_BHT @ hidden_BTD
        context_BHW = torch.einsum("bhd,hwd->bhw", context_BHD, value_HWD)
        return self.output(context_BHW.flatten(1))
