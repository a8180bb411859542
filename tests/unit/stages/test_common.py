"""Splits, batches, the schedule, and folders that are whole or absent."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from r2m.errors import UserError
from r2m.stages.common import batches, check_lengths, hold_out, new_folder, optimizer_step
from r2m.stages.progress import progress_bar


@pytest.mark.parametrize(
    ("total", "share", "held_out"), [(20, 0.1, 2), (20, 0.0, 1), (2, 0.9, 1), (3, 1.0, 2), (5, 0.5, 2)]
)
def test_hold_out_splits_without_loss_and_leaves_both_sides_something(
    total: int, share: float, held_out: int
) -> None:
    train, held = hold_out(list(range(total)), share, seed=1)
    assert len(held) == held_out
    assert sorted(train + held) == list(range(total))


def test_hold_out_is_a_function_of_the_seed() -> None:
    items = list(range(50))
    assert hold_out(items, 0.2, seed=1) == hold_out(items, 0.2, seed=1) != hold_out(items, 0.2, seed=2)


@pytest.mark.parametrize("total", [0, 1])
def test_hold_out_needs_two(total: int) -> None:
    with pytest.raises(UserError, match=f"{total} usable rows"):
        hold_out([0] * total, 0.5, seed=0)


def test_a_pass_of_batches_has_every_index_once_and_the_next_pass_another_order() -> None:
    lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    stream = batches(lengths, size=4, seed=0)
    first, second = list(islice(stream, 3)), list(islice(stream, 3))
    for epoch in (first, second):
        assert sorted(i for batch in epoch for i in batch) == list(range(10))
        assert sorted(map(len, epoch)) == [2, 4, 4]
    assert first != second
    assert first == list(islice(batches(lengths, size=4, seed=0), 3))


def test_batches_hold_sequences_of_like_length() -> None:
    lengths = [i % 50 for i in range(400)]
    epoch = list(islice(batches(lengths, size=8, seed=0), 50))
    spread = sum(max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in epoch) / 50
    assert spread < 10  # 39 in random batches of 8 from 0 .. 49


def test_the_rate_warms_up_over_a_twentieth_and_decays_to_nothing() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    rates = []
    for step in range(40):
        weight.grad = torch.zeros(1)
        optimizer_step([weight], optimizer, 1.0, step, 40)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:3] == [0.5, 1.0, 1.0]  # of 40 steps 2 warm up
    assert rates[3] == pytest.approx(37 / 38)
    assert rates[-1] == pytest.approx(1 / 38)


def test_a_long_gradient_is_cut_to_1_and_one_that_is_not_finite_stops_before_the_weights() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer_step([weight], optimizer, 1.0, 0, 1)
    assert weight.detach().tolist() == pytest.approx([-0.6, -0.8])
    weight.grad = torch.tensor([float("nan"), 0.0])
    with pytest.raises(FloatingPointError, match="step 1"):
        optimizer_step([weight], optimizer, 1.0, 1, 2)
    assert weight.detach().tolist() == pytest.approx([-0.6, -0.8])


def test_check_lengths_goes_by_the_context(policy: LlamaForCausalLM) -> None:
    check_lengths(24, policy)
    with pytest.raises(UserError, match=r"longest sequence has 25 tokens, the context of .* is 24"):
        check_lengths(25, policy)


def fill(folder: Path) -> None:
    (folder / "model").write_text("weights")


@pytest.mark.parametrize("before", [lambda out: None, Path.mkdir])
def test_a_new_folder_appears_whole(tmp_path: Path, before: Callable[[Path], None]) -> None:
    out = tmp_path / "a" / "model"
    out.parent.mkdir()
    before(out)
    with new_folder(out) as folder:
        fill(folder)
        assert not (out / "model").exists()
    assert (out / "model").read_text() == "weights"
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "model") as folder:
            fill(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["a file", "a full folder"])
def test_what_is_there_stays(tmp_path: Path, taken: str) -> None:
    out = tmp_path / "model"
    if taken == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        fill(out)
    with pytest.raises(UserError, match="it exists; name a new or an empty folder"), new_folder(out):
        pass
    assert out.exists()
    assert list(tmp_path.iterdir()) == [out]


def test_the_bar_shows_each_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as progress:
        progress("supervised fine-tuning", 2, 2)
        progress("reward model", 1, 3)
    shown = capsys.readouterr().out
    assert "supervised fine-tuning" in shown
    assert "2/2" in shown
    assert "1/3" in shown
