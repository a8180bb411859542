"""Modules and optimisers as flat tensors, and back."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from r2m.policy.state import module_tensors, optimizer_tensors, restore_module, restore_optimizer


class TestModules:
    def test_tied_weights_are_stored_once_and_stay_tied(self) -> None:
        def make(seed: int) -> LlamaForCausalLM:
            torch.manual_seed(seed)
            return LlamaForCausalLM(LlamaConfig(
                vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                tie_word_embeddings=True,
            ))  # fmt: skip

        source, target = make(0), make(1)
        stored = module_tensors("policy", source)
        assert sum("embed_tokens" in name or "lm_head" in name for name in stored) == 1
        restore_module("policy", target, stored)
        assert target.lm_head.weight is target.model.embed_tokens.weight
        ids = torch.tensor([[1, 2, 3]])
        assert torch.equal(source(ids).logits, target(ids).logits)

    def test_buffers_are_part_of_it(self) -> None:
        source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        source(torch.randn(8, 3))
        restore_module("m", target, module_tensors("m", source))
        assert torch.equal(source.running_mean, target.running_mean)
        assert target.num_batches_tracked == 1

    def test_a_missing_tensor_is_an_error(self) -> None:
        stored = module_tensors("m", nn.Linear(2, 2))
        del stored["m/bias"]
        with pytest.raises(KeyError, match="bias"):
            restore_module("m", nn.Linear(2, 2), stored)


@pytest.mark.parametrize("steps", [0, 3])
def test_an_optimiser_goes_on_as_if_never_interrupted(steps: int) -> None:
    """Also one that has not taken a step."""

    def make() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), 0.1, fused=True)

    def descend(layer: nn.Linear, optimizer: torch.optim.Optimizer, times: int) -> None:
        for i in range(times):
            layer(torch.full((1, 3), float(i + 1))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    (layer, optimizer), (other, other_optimizer) = make(), make()
    descend(layer, optimizer, steps)
    stored = module_tensors("m", layer) | optimizer_tensors("o", optimizer)
    stored = {name: tensor.detach().clone() for name, tensor in stored.items()}
    restore_module("m", other, stored)
    restore_optimizer("o", other_optimizer, stored)
    descend(layer, optimizer, 3)
    descend(other, other_optimizer, 3)
    assert torch.equal(layer.weight, other.weight)
