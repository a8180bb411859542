import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from r2m.core.feedback_head import OUTPUT_GAIN, FeedbackHead

B, T, D_RM, D_P, A, HEADS = 5, 9, 12, 10, 16, 4


def make_head(residual: bool = True, **options: torch.dtype) -> FeedbackHead:
    generator = torch.Generator().manual_seed(1)
    head = FeedbackHead(D_RM, D_P, A, HEADS, score_bias=True, residual=residual, generator=generator)
    with torch.no_grad():  # a trained head's size, so that a mistake in the attention shows in the reward
        head.output.weight.div_(OUTPUT_GAIN)
        head.score.bias.fill_(0.3)
    return head.to(**options)


def make_batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Ragged, and padded on both sides; the third row is full."""
    generator = torch.Generator().manual_seed(2)
    reward_token_BD = torch.randn(B, D_RM, generator=generator, dtype=dtype)
    hidden_BTD = torch.randn(B, T, D_P, generator=generator, dtype=dtype)
    positions_T = torch.arange(T)
    starts_B, ends_B = torch.tensor([0, 3, 0, 8, 2]), torch.tensor([6, 9, 9, 9, 4])
    mask_BT = (positions_T >= starts_B.unsqueeze(-1)) & (positions_T < ends_B.unsqueeze(-1))
    return reward_token_BD, hidden_BTD, mask_BT


def textbook(
    head: FeedbackHead, reward_token_BD: Tensor, hidden_BTD: Tensor, mask_BT: Tensor, omega: float
) -> Tensor:
    """The same reward with a key and a value of full width for each token, and torch's own attention."""

    def split(tensor: Tensor) -> Tensor:  # B by tokens by A, into B by heads by tokens by A / heads
        return tensor.unflatten(-1, (head.num_heads, -1)).transpose(1, 2)

    query = split(head.query(reward_token_BD).unsqueeze(1))
    attended = F.scaled_dot_product_attention(
        query, split(head.key(hidden_BTD)), split(head.value(hidden_BTD)), attn_mask=mask_BT[:, None, None]
    )
    aggregated_BD = head.residual * reward_token_BD + head.output(attended.transpose(1, 2).flatten(1))
    return head.score((1 - omega) * aggregated_BD + omega * reward_token_BD).squeeze(-1)


@pytest.mark.parametrize(("omega", "residual"), [(0.0, True), (0.4, True), (0.0, False), (0.4, False)])
def test_equals_the_textbook_with_gradients(omega: float, residual: bool) -> None:
    head = make_head(residual)
    reward_token_BD, hidden_BTD, mask_BT = make_batch()
    inputs = [reward_token_BD.requires_grad_(), hidden_BTD.requires_grad_(), *head.parameters()]
    weights_B = torch.randn(B, generator=torch.Generator().manual_seed(3))
    folded_B = head(reward_token_BD, hidden_BTD, mask_BT, omega)
    expected_B = textbook(head, reward_token_BD, hidden_BTD, mask_BT, omega)
    torch.testing.assert_close(folded_B, expected_B, rtol=1e-5, atol=1e-5)
    folded_gradients = torch.autograd.grad(folded_B @ weights_B, inputs)
    expected_gradients = torch.autograd.grad(expected_B @ weights_B, inputs)
    for folded, expected in zip(folded_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)


def test_one_token_by_hand() -> None:
    """A lone token has attention 1: CA = W_o W_v h."""
    head = FeedbackHead(2, 2, 2, 1)
    with torch.no_grad():
        head.value.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        head.output.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, -1.0]]))
        head.score.weight.copy_(torch.tensor([[2.0, 1.0]]))
    hidden_BTD = torch.tensor([[[3.0, 1.0]]])  # W_v h = (5, 1), W_o of it = (5, 4), φ of it = 14
    reward_B = head(torch.tensor([[1.0, 1.0]]), hidden_BTD, torch.tensor([[True]]), 0.5)  # φ(H) = 3
    torch.testing.assert_close(reward_B, torch.tensor([3 + 0.5 * 14]))


def test_one_token_without_a_residual_by_hand() -> None:
    head = FeedbackHead(2, 2, 2, 1, residual=False)
    with torch.no_grad():
        head.value.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        head.output.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, -1.0]]))
        head.score.weight.copy_(torch.tensor([[2.0, 1.0]]))
    inputs = torch.tensor([[1.0, 1.0]]), torch.tensor([[[3.0, 1.0]]]), torch.tensor([[True]])
    for omega, by_hand in ((0.25, 0.25 * 3 + 0.75 * 14), (0.0, 14.0), (1.0, 3.0)):  # φ(H) = 3, φ(CA) = 14
        torch.testing.assert_close(head(*inputs, omega), torch.tensor([by_hand]))


def test_attention_weights_by_hand() -> None:
    """Logits log 3 and 0 weigh two tokens 3 to 1."""
    head = FeedbackHead(1, 1, 4, 1)  # one head of width 4: the logits are divided by 2
    with torch.no_grad():
        for weight in (head.query.weight, head.key.weight, head.value.weight, head.output.weight):
            weight.zero_()[0, 0] = 1.0
        head.score.weight.fill_(1.0)
    hidden_BTD = torch.tensor([[[2 * math.log(3)], [0.0]]])
    reward_B = head(torch.ones(1, 1), hidden_BTD, torch.ones(1, 2, dtype=torch.bool), 0.0)
    torch.testing.assert_close(reward_B, torch.tensor([1 + 0.75 * 2 * math.log(3)]))


def test_gradcheck() -> None:
    head = make_head(dtype=torch.float64)
    reward_token_BD, hidden_BTD, mask_BT = make_batch(torch.float64)
    mask_BT[0] = False
    names, parameters = zip(*head.named_parameters(), strict=True)

    def rewards(reward_token_BD: Tensor, hidden_BTD: Tensor, *parameters: Tensor) -> Tensor:
        arguments = (reward_token_BD, hidden_BTD, mask_BT, 0.3)
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), arguments)

    inputs = (reward_token_BD.requires_grad_(), hidden_BTD.requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(rewards, inputs)


def test_vanilla_reward_at_omega_one() -> None:
    """Exactly φ(H): the hidden states are not even read, and only φ learns."""
    head = make_head()
    reward_token_BD, hidden_BTD, mask_BT = make_batch()
    reward_B = head(reward_token_BD, torch.full_like(hidden_BTD, torch.nan), mask_BT, 1.0)
    assert reward_B.tolist() == head.score(reward_token_BD).squeeze(-1).tolist()
    reward_B.sum().backward()
    assert {name for name, p in head.named_parameters() if p.grad is not None} == {"score.weight", "score.bias"}


def test_reward_is_affine_in_omega() -> None:
    head, batch = make_head(), make_batch()
    at = {omega: head(*batch, omega) for omega in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(at[0.25], 0.75 * at[0.0] + 0.25 * at[1.0])
    assert (at[0.0] - at[1.0]).abs().min() > 1e-3


def test_amount_and_content_of_padding_change_nothing() -> None:
    head = make_head()
    reward_token_BD, hidden_BTD, mask_BT = make_batch()
    expected_B = head(reward_token_BD, hidden_BTD, mask_BT, 0.0)
    loud_BTD = hidden_BTD.masked_fill(~mask_BT.unsqueeze(-1), 1e4)
    wider_BTD = F.pad(loud_BTD, (0, 0, 4, 7), value=-1e4)
    wider_mask_BT = F.pad(mask_BT, (4, 7), value=False)
    torch.testing.assert_close(head(reward_token_BD, wider_BTD, wider_mask_BT, 0.0), expected_B)


def test_order_of_tokens_and_microbatches_change_nothing() -> None:
    head = make_head()
    reward_token_BD, hidden_BTD, mask_BT = make_batch()
    expected_B = head(reward_token_BD, hidden_BTD, mask_BT, 0.0)
    order_T = torch.randperm(T, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(head(reward_token_BD, hidden_BTD[:, order_T], mask_BT[:, order_T], 0.0), expected_B)
    rows = [head(*(tensor[i : i + 1] for tensor in (reward_token_BD, hidden_BTD, mask_BT)), 0.0) for i in range(B)]
    torch.testing.assert_close(torch.cat(rows), expected_B)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("width", [0, T])
def test_an_empty_row_gets_the_vanilla_reward(width: int) -> None:
    head = make_head()
    reward_token_BD, hidden_BTD, mask_BT = make_batch()
    mask_BT = mask_BT.clone()
    mask_BT[1] = False
    hidden_BTD.requires_grad_()
    with torch.autograd.detect_anomaly():  # no NaN on the way either
        reward_B = head(reward_token_BD, hidden_BTD[:, :width], mask_BT[:, :width], 0.0)
        torch.testing.assert_close(reward_B[1], head.score(reward_token_BD[1]).squeeze())
        reward_B.sum().backward()
    for tensor in (hidden_BTD, *head.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert hidden_BTD.grad[1].count_nonzero() == 0


def test_hidden_states_in_bfloat16() -> None:
    head = make_head()
    reward_token_BD, hidden_BTD, mask_BT = make_batch()
    rounded = (reward_token_BD.bfloat16(), hidden_BTD.bfloat16())
    reward_B = head(*rounded, mask_BT, 0.0)
    expected_B = head(*(tensor.float() for tensor in rounded), mask_BT, 0.0)
    assert reward_B.dtype == torch.float32
    assert reward_B.tolist() == expected_B.tolist()


def test_under_autocast() -> None:
    head, batch = make_head(), make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reward_B = head(*batch, 0.0)
    torch.testing.assert_close(reward_B.float(), head(*batch, 0.0), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_score_copies(bias: bool, dtype: torch.dtype) -> None:
    score = nn.Linear(D_RM, 1, bias=bias, dtype=dtype)
    head = FeedbackHead.from_score(score, D_P, A, HEADS)
    reward_token_BD, hidden_BTD, mask_BT = make_batch()
    expected_B = score.float()(reward_token_BD).squeeze(-1)
    torch.testing.assert_close(head(reward_token_BD, hidden_BTD, mask_BT, 1.0), expected_B)
    assert (head.score.bias is not None) == bias
    with torch.no_grad():
        head.score.weight.add_(1.0)
    torch.testing.assert_close(score(reward_token_BD).squeeze(-1), expected_B)


@pytest.mark.parametrize("gain", [OUTPUT_GAIN, 0.5])
def test_untrained_correction_is_of_its_gain_and_learns(gain: float) -> None:
    """2 % of what the attention averages, or another share, and every projection has a gradient."""
    generator = torch.Generator().manual_seed(5)
    head = FeedbackHead(256, 256, 128, 4, output_gain=gain, generator=generator)
    reward_token_BD = torch.randn(64, 256, generator=generator)
    hidden_BTD = torch.randn(64, 1, 256, generator=generator)  # one token, so the average is h itself
    correction_BD = head.cross_attention(reward_token_BD, hidden_BTD, torch.ones(64, 1))
    assert correction_BD.square().mean().sqrt().item() == pytest.approx(gain, rel=0.1)
    hidden_BTD = torch.randn(64, 8, 256, generator=generator)
    head(reward_token_BD, hidden_BTD, torch.ones(64, 8), 0.0).sum().backward()
    assert all(p.grad is not None and p.grad.count_nonzero() > 0 for p in head.parameters())


def test_initial_weights_are_reproducible() -> None:
    def weights(seed: int) -> Tensor:
        head = FeedbackHead(D_RM, D_P, A, HEADS, generator=torch.Generator().manual_seed(seed))
        return nn.utils.parameters_to_vector(head.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    by_global_seed = []
    for _ in range(2):
        torch.manual_seed(7)
        by_global_seed.append(nn.utils.parameters_to_vector(FeedbackHead(D_RM, D_P, A, HEADS).parameters()))
    assert torch.equal(*by_global_seed)


def test_operations_by_hand() -> None:
    """No key or value for each token: per token, each head only weighs and sums hidden states."""
    head, batch = make_head(), make_batch()
    with FlopCounterMode(display=False) as counter:
        head(*batch, 0.0)
    per_trajectory = 2 * (D_RM * A + A * D_P) * 2 + 2 * HEADS * T * D_P * 2 + D_RM * 2
    assert counter.get_total_flops() == B * per_trajectory


@pytest.mark.parametrize("omega", [-0.1, 1.1, math.nan])
def test_refuses_omega(omega: float) -> None:
    with pytest.raises(ValueError, match=r"omega is .*allowed: 0 to 1"):
        make_head()(*make_batch(), omega)


def test_refuses_sizes() -> None:
    with pytest.raises(ValueError, match="attention_width is 10, allowed: a multiple of num_heads = 4"):
        FeedbackHead(D_RM, D_P, 10, 4)
    with pytest.raises(ValueError, match="num_heads = 0"):
        FeedbackHead(D_RM, D_P, 10, 0)
    with pytest.raises(ValueError, match="score has 2 outputs, allowed: 1"):
        FeedbackHead.from_score(nn.Linear(D_RM, 2), D_P)
