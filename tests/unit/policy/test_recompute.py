"""Recomputed activations: the same log-probs and gradients, and less that is kept for the backward."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.models.families import CacheUse
from r2m.policy.forward import PolicyOutput, policy_forward
from r2m.policy.output import cache_use
from r2m.policy.recompute import recompute_activations
from tests.families import TOKENS, tiny
from tests.family_contract import gradient_of, trajectories

WAYS = {
    "llama": CacheUse.SHARED,
    "qwen2": CacheUse.SHARED,
    "gpt_neox": CacheUse.SHARED,
    "gemma2": CacheUse.SHARED,  # with sliding windows, shorter than the prompt
    "deepseek_v32": CacheUse.SHARED,  # its cache holds more than keys and values: recomputed, responses run apart
    "falcon_h1": CacheUse.CACHED,
    "roberta": CacheUse.RERUN,
}


def made() -> Trajectories:
    random = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(3, TOKENS, (length,), generator=random).tolist()

    return trajectories([ids(24), ids(11)], [[ids(24), ids(7), ids(1)], [ids(9), ids(24), ids(15)]])


def run(model: PreTrainedModel) -> tuple[PolicyOutput, torch.Tensor, int]:
    """The forward's output, the gradient of all that it gives, and the bytes that were kept for it."""
    t, kept = made(), {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        out = policy_forward(model, t, 0.7)
    weights_NKR = torch.randn(t.response_ids_NKR.shape, generator=torch.Generator().manual_seed(1))
    loss = (out.log_probs_NKR * weights_NKR)[t.response_mask_NKR].sum()
    (loss + out.prompt_hidden_NPD[t.prompt_mask_NP].square().sum()).backward()
    return out, gradient_of(model), sum(kept.values())


@pytest.mark.parametrize("family", WAYS)
def test_same_gradients_and_less_kept(family: str) -> None:
    model = tiny(family)
    assert cache_use(model) is WAYS[family]
    expected, gradient, bytes_kept = run(model)
    recompute_activations(model, "policy.recompute")
    found, again, fewer = run(model)
    mask_NKR = made().response_mask_NKR
    torch.testing.assert_close(found.log_probs_NKR[mask_NKR], expected.log_probs_NKR[mask_NKR])
    assert (again - gradient).norm() < 1e-5 * gradient.norm()
    assert fewer < 0.5 * bytes_kept


def test_adapters_in_frozen_layers() -> None:
    """Nothing that goes into the first layer has a gradient then."""
    model = tiny("llama")
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(len(name)))
    _, gradient, bytes_kept = run(model)
    recompute_activations(model, "policy.recompute")
    _, again, fewer = run(model)
    assert (again - gradient).norm() < 1e-5 * gradient.norm()
    assert fewer < 0.5 * bytes_kept


def test_layers_are_left_as_they_were() -> None:
    model = tiny("llama")
    recompute_activations(model, "policy.recompute")
    policy_forward(model, made(), 1.0)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_family_whose_layers_cannot_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^policy.recompute = true: layers of ctrl can't be recomputed") as refused:
        recompute_activations(tiny("ctrl"), "policy.recompute = true")
    assert "\n" not in str(refused.value)
