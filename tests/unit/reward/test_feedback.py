"""Noise in the place of hidden states. Axes: N queries, K responses, P prompt and R response tokens, D width."""

import torch
from torch import Tensor

from r2m.core.trajectories import Trajectories
from r2m.policy.forward import HiddenStates, PolicyOutput
from r2m.reward.feedback import NoiseStates
from r2m.workers import Workers

ONE = Workers()


def trajectories(prompts: list[int], responses: list[list[int]]) -> Trajectories:
    """Of these lengths in tokens."""
    P, R = max(prompts), max(max(row) for row in responses)
    prompt_mask_NP = torch.arange(P) >= P - torch.tensor(prompts)[:, None]
    mask_NKR = torch.arange(R) < torch.tensor(responses)[..., None]
    return Trajectories(
        prompt_mask_NP.long(), prompt_mask_NP, mask_NKR.long(), mask_NKR,
        torch.zeros(mask_NKR.shape), torch.ones(mask_NKR.shape[:2], dtype=torch.bool),
    )  # fmt: skip


def hidden_of(t: Trajectories, prompt_NPD: Tensor, response_NKRD: Tensor) -> HiddenStates:
    hidden = HiddenStates(t, torch.float32, "cpu")
    hidden.store(slice(None), slice(None), PolicyOutput(Tensor(), Tensor(), prompt_NPD, response_NKRD))
    return hidden


def noise_of(hidden: HiddenStates, t: Trajectories, seed: int = 0, step: int = 1, batch: int = 2) -> NoiseStates:
    return NoiseStates(hidden, t, batch, ONE, "noise", seed, step)


def random_case(D: int = 3) -> tuple[HiddenStates, Trajectories]:
    t = trajectories([5, 2, 4], [[3, 6], [1, 2], [4, 4]])
    generator = torch.Generator().manual_seed(0)
    scale_D = torch.tensor([0.1, 1.0, 20.0])[:D]
    prompt_NPD = torch.randn(3, 5, D, generator=generator) * scale_D + 5
    return hidden_of(t, prompt_NPD, torch.randn(3, 2, 5, D, generator=generator) * scale_D - 2), t


def test_moments_by_hand() -> None:
    """One query of 1 prompt token, responses of 2 tokens and 1: rows 1, 3 and 1; 99 at padding does not count."""
    t = trajectories([1], [[2, 1]])
    hidden = hidden_of(t, torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[[3.0, 0.0]], [[99.0, 99.0]]]]))
    noise = noise_of(hidden, t)
    torch.testing.assert_close(noise.mean_D, torch.tensor([5 / 3, 0.0]).double())
    torch.testing.assert_close(noise.std_D, torch.tensor([(8 / 9) ** 0.5, 0.0]).double())
    rows_BTD, mask_BT = noise.rows(slice(0, 1), "cpu")
    assert mask_BT.tolist() == [[True, True], [True, False]]
    assert (rows_BTD[..., 1] == 0).all()  # no spread, no noise


def test_it_has_the_mean_and_the_deviation_of_each_component() -> None:
    t = trajectories([200], [[201] * 100])
    generator = torch.Generator().manual_seed(0)
    scale_D, mean_D = torch.tensor([0.1, 1.0, 20.0]), torch.tensor([3.0, 0.0, -5.0])
    prompt_NPD = torch.randn(1, 200, 3, generator=generator) * scale_D + mean_D
    hidden = hidden_of(t, prompt_NPD, torch.randn(1, 100, 200, 3, generator=generator) * scale_D + mean_D)
    real_BTD, _ = hidden.rows(slice(0, 1), "cpu")
    rows_BTD, mask_BT = noise_of(hidden, t).rows(slice(0, 1), "cpu")
    assert mask_BT.all()
    flat, real = rows_BTD.flatten(0, 1), real_BTD.flatten(0, 1)
    error_D = scale_D / len(flat) ** 0.5
    assert ((flat.mean(0) - real.mean(0)).abs() < 4 * error_D).all()
    torch.testing.assert_close(flat.std(0), real.std(0), rtol=0.02, atol=0)
    # and nothing of what they were: tokens, trajectories and components are independent
    for other in (real, flat.roll(1, 0), flat.roll(1, 1), rows_BTD.roll(1, 0).flatten(0, 1)):
        together = torch.corrcoef(torch.stack([flat[:, 0], other[:, 0]]))[0, 1]
        assert abs(together) < 4 / len(flat) ** 0.5


def test_it_is_a_function_of_seed_step_and_row() -> None:
    hidden, t = random_case()
    rows_BTD, mask_BT = noise_of(hidden, t).rows(slice(0, 3), "cpu")
    assert torch.equal(mask_BT, hidden.rows(slice(0, 3), "cpu")[1])
    assert torch.equal(noise_of(hidden, t, batch=6).rows(slice(0, 3), "cpu")[0], rows_BTD)
    for n in range(3):  # in parts, and again
        assert torch.equal(noise_of(hidden, t).rows(slice(n, n + 1), "cpu")[0], rows_BTD[2 * n : 2 * n + 2])
    assert not rows_BTD[~mask_BT].any()
    first_B = [rows_BTD[b, mask_BT[b]][0].tolist() for b in range(6)]
    assert len({tuple(row) for row in first_B}) == 6
    for other in (noise_of(hidden, t, seed=1), noise_of(hidden, t, step=2)):
        other_BTD, _ = other.rows(slice(0, 3), "cpu")
        assert (other_BTD[mask_BT] != rows_BTD[mask_BT]).all()


def test_later_hidden_states_do_not_change_it() -> None:
    """The refresh of line 13 is of what the noise has replaced."""
    hidden, t = random_case()
    noise = noise_of(hidden, t)
    before_BTD, _ = noise.rows(slice(0, 3), "cpu")
    hidden.store(
        slice(None), slice(None), PolicyOutput(Tensor(), Tensor(), torch.ones(3, 5, 3), torch.ones(3, 2, 5, 3))
    )
    assert torch.equal(noise.rows(slice(0, 3), "cpu")[0], before_BTD)


def test_padding_that_other_rows_decide_draws_nothing() -> None:
    """The first two queries in a narrower batch, without the longest response and prompt."""
    t = trajectories([2, 4, 5], [[1, 2], [4, 4], [3, 6]])
    narrow = t.block(slice(0, 2))
    case = [
        hidden_of(x, torch.zeros(N, P, 2), torch.zeros(N, 2, R - 1, 2))
        for x, N, P, R in ((t, 3, 5, 6), (narrow, 2, 4, 4))
    ]
    rows = []
    for hidden, own in zip(case, (t, narrow), strict=True):
        noise = noise_of(hidden, own)
        noise.mean_D, noise.std_D = torch.zeros(2), torch.ones(2)
        values_BTD, mask_BT = noise.rows(slice(0, 2), "cpu")
        rows.append(values_BTD[mask_BT])
    assert torch.equal(*rows)
