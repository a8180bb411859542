"""What a round measures of itself, by numbers worked by hand. Axes: N queries, K responses, R response tokens."""

import math
from pathlib import Path

import pytest
import torch

from r2m.core.trajectories import Trajectories
from r2m.round_metrics import (
    Clock,
    choice_accuracy,
    correlation,
    gold_metrics,
    greedy_metrics,
    peak_mib,
    round_metrics,
)
from r2m.workers import Workers

ONE = Workers()
GARBAGE = 99.0  # at padding, where nothing may look


def test_a_round_by_hand() -> None:
    """Two queries, two responses, of lengths 2 and 1, 1 and 2."""
    mask = torch.tensor([[[1, 1], [1, 0]], [[1, 0], [1, 1]]], dtype=torch.bool)
    old = torch.tensor([[[-1.0, -2.0], [-3.0, GARBAGE]], [[-1.0, GARBAGE], [-0.5, -0.5]]])
    ref = torch.tensor([[[-2.0, -2.0], [-1.0, 0.0]], [[-1.5, 0.0], [-1.0, -0.5]]])
    sampled = torch.tensor([[[-1.0, -2.25], [-3.0, 0.0]], [[-1.0, 0.0], [-0.5, -0.625]]])
    entropy = torch.tensor([[[1.0, 2.0], [3.0, GARBAGE]], [[0.5, GARBAGE], [1.0, 1.5]]])
    prompt = torch.ones(2, 1, dtype=torch.long)
    t = Trajectories(
        prompt, prompt.bool(), torch.zeros(2, 2, 2, dtype=torch.long), mask, sampled,
        torch.tensor([[True, True], [True, False]]),
    )  # fmt: skip
    scores = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    advantages = torch.tensor([[-2.0, 2.0], [0.0, 0.0]])
    assert round_metrics(t, scores, scores - 1, advantages, old, ref, entropy, ONE) == pytest.approx({
        "reward/proxy": 2.0,
        "reward/proxy_std": 0.5,  # the mean of 1 and 0
        "reward/vanilla": 1.0,
        "train/advantage_std": math.sqrt(2),
        "train/entropy": 9 / 6,
        "kl/sequence": (1 - 2 + 0.5 + 0.5) / 4,
        "kl/token": (1 - 2 + 0.5 + 0.5) / 6,
        "rollout/response_tokens": 1.5,
        "rollout/no_eos_share": 0.25,
        "rollout/log_prob_error": 0.25,
        "rollout/log_prob_error_mean": (0.25 + 0.125) / 6,
    })  # fmt: skip


def test_greedy_by_hand() -> None:
    """Scores 1 and -2 of responses of 3 tokens and 2."""
    mask = torch.tensor([[[1, 1, 1]], [[1, 1, 0]]], dtype=torch.bool)
    prompt = torch.ones(2, 1, dtype=torch.long)
    t = Trajectories(prompt, prompt.bool(), mask.long(), mask, torch.zeros(2, 1, 3), torch.ones(2, 1).bool())
    metrics = greedy_metrics(t, torch.tensor([1.0, -2.0]), ONE)
    assert metrics == {"reward/greedy": -0.5, "rollout/greedy_tokens": 2.5}


class TestGold:
    GOLD = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])

    def test_by_hand(self) -> None:
        """The proxy chooses right in the first group, and pairs equals in gold in the second."""
        proxy = torch.tensor([[2.0, 1.0, 0.0], [3.0, 0.0, 1.0]])
        vanilla = -self.GOLD
        metrics = gold_metrics(self.GOLD, proxy, vanilla, ONE)
        assert metrics["reward/gold"] == pytest.approx(1 / 6)
        assert metrics["reward/choice_accuracy"] == 1
        assert metrics["reward/vanilla_choice_accuracy"] == 0
        assert metrics["reward/vanilla_gold_correlation"] == pytest.approx(-1)

    def test_accuracy_is_undefined_where_all_pairs_tie(self) -> None:
        assert math.isnan(choice_accuracy(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)))

    def test_correlation(self) -> None:
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        assert correlation(x, 5 * x - 7) == pytest.approx(1)
        assert correlation(x, torch.tensor([[1.0, 2.0], [2.0, 1.0]])) == pytest.approx(0)
        assert math.isnan(correlation(x, torch.ones(2, 2)))

    def test_correlation_is_that_of_numpy(self) -> None:
        x, y = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
        expected = torch.corrcoef(torch.stack([x.flatten(), y.flatten()]).double())[0, 1]
        assert correlation(x, y) == pytest.approx(float(expected))


def test_clock_has_the_phases_of_this_round_alone() -> None:
    clock = Clock(torch.device("cpu"))
    for phases in (("sample", "policy", "head"), ("sample", "policy")):
        clock.start_round()
        for phase in phases:
            with clock(phase):
                pass
        metrics = clock.metrics(sampled_tokens=10, trained_tokens=20)
        assert set(metrics) == {
            *(f"time/{phase}_s" for phase in phases), "time/round_s",
            "speed/sampled_tokens_per_s", "speed/trained_tokens_per_s",
        }  # fmt: skip
        assert metrics["time/round_s"] >= metrics["time/sample_s"] + metrics["time/policy_s"] >= 0
        assert metrics["speed/trained_tokens_per_s"] == pytest.approx(20 / metrics["time/policy_s"])


def peak_of_this_process() -> float:
    """In MiB, as the kernel's own table says it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_peak_memory_counts_what_is_held() -> None:
    held = torch.ones(2**24)  # 64 MiB of fp32
    assert peak_mib(torch.device("cpu")) > 64
    assert peak_mib(torch.device("cpu")) == pytest.approx(peak_of_this_process(), rel=0.1)
    del held
