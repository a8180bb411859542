"""Operations of the feedback head as built, with folded projections, against explicit keys and values.

Counts the multiplications and additions of every matrix product without doing any: all tensors are on the
meta device. Prints a Markdown table.

    python benchmarks/feedback_head_ops.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from r2m.core.feedback_head import FeedbackHead

# B trajectories, T tokens, and the widths of reward model, policy and attention. Counts are per trajectory.
SIZES = {
    "paper, 8B": {"B": 4, "T": 1024, "D_rm": 4096, "D_p": 4096, "A": 2048, "heads": 16},
    "small": {"B": 4, "T": 32, "D_rm": 128, "D_p": 128, "A": 64, "heads": 4},
}


def textbook(head: FeedbackHead, reward_token_BD: Tensor, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The head's reward at ω = 0 by keys and values of width A for each token."""

    def split(tensor: Tensor) -> Tensor:  # B by tokens by A, into B by heads by tokens by A / heads
        return tensor.unflatten(-1, (head.num_heads, -1)).transpose(1, 2)

    query = split(head.query(reward_token_BD).unsqueeze(1))
    attended = F.scaled_dot_product_attention(
        query, split(head.key(hidden_BTD)), split(head.value(hidden_BTD)), attn_mask=mask_BT[:, None, None]
    )
    return head.score(reward_token_BD + head.output(attended.transpose(1, 2).flatten(1))).squeeze(-1)


def operations(folded: bool, B: int, T: int, D_rm: int, D_p: int, A: int, heads: int) -> tuple[int, int]:
    """Operations of the forward, and of forward and backward, for one trajectory.

    The backward is to the parameters alone, as in training: H and h come from models that it does not train.
    """
    with torch.device("meta"):
        head = FeedbackHead(D_rm, D_p, A, heads)
        inputs = (torch.empty(B, D_rm), torch.empty(B, T, D_p), torch.empty(B, T, dtype=torch.bool))
    with FlopCounterMode(display=False) as counter:
        rewards_B = head(*inputs, omega=0.0) if folded else textbook(head, *inputs)
        forward = counter.get_total_flops()
        rewards_B.sum().backward()
    return forward // B, counter.get_total_flops() // B


def main() -> None:
    print("| Size | Pass | Explicit keys and values | Folded | Ratio |")
    print("|---|---|---:|---:|---:|")
    for name, size in SIZES.items():
        explicit, folded = operations(False, **size), operations(True, **size)
        for phase, before, after in zip(("forward", "forward + backward"), explicit, folded, strict=True):
            print(f"| {name} | {phase} | {before:.3g} | {after:.3g} | {before / after:.1f} |")


if __name__ == "__main__":
    main()
