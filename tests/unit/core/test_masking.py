import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from r2m.core.masking import lengths_to_mask, pad, positions, scaled_logits, token_log_probs
from r2m.limits import LOGITS


def linear_log_probs(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    ids_BT: Tensor,
    temperature: float,
    bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """token_log_probs of the plainest model: logits h Wᵀ + b."""
    return token_log_probs(
        hidden_BTD, lambda h: F.linear(h, weight_VD, bias), ids_BT, temperature, len(weight_VD), **options
    )


class TestPad:
    def test_right(self) -> None:
        ids_BT, mask_BT = pad([[5, 6, 7], [], [8]], 0, "right")
        assert ids_BT.tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
        assert mask_BT.tolist() == [[True, True, True], [False, False, False], [True, False, False]]
        assert (ids_BT.dtype, mask_BT.dtype) == (torch.int64, torch.bool)

    def test_left(self) -> None:
        ids_BT, mask_BT = pad([[5, 6, 7], [8]], 9, "left")
        assert ids_BT.tolist() == [[5, 6, 7], [9, 9, 8]]
        assert mask_BT.tolist() == [[True, True, True], [False, False, True]]

    def test_the_padding_id_may_be_a_token(self) -> None:
        assert pad([[0, 0], [1]], 0, "right")[1].tolist() == [[True, True], [True, False]]

    def test_no_sequences(self) -> None:
        assert pad([], 0, "left")[0].shape == (0, 0)

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match="side is 'top', allowed: left, right"):
            pad([[1]], 0, "top")


class TestPositionsAndLengths:
    def test_positions_count_tokens_on_either_side(self) -> None:
        mask_BT = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0]]).bool()
        positions_BT = positions(mask_BT)
        assert positions_BT.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 1, 2, 2]]
        assert positions_BT.dtype == torch.int64

    def test_lengths_to_mask(self) -> None:
        mask_BT = lengths_to_mask(torch.tensor([0, 2, 3]), 3)
        assert mask_BT.tolist() == [[False, False, False], [True, True, False], [True, True, True]]


class GreatestTensor(TorchDispatchMode):
    """Records the number of elements of the greatest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes) if sizes else self.elements
        return result


class TestTokenLogProbs:
    B, T, D, V = 4, 16, 4, 32

    def inputs(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        sizes = {"hidden_BTD": (self.B, self.T, self.D), "weight_VD": (self.V, self.D), "bias": (self.V,)}
        tensors = {
            name: torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
            for name, size in sizes.items()
        }
        return {**tensors, "ids_BT": torch.randint(self.V, (self.B, self.T), generator=generator)}

    def test_by_hand(self) -> None:
        hidden_BTD = torch.tensor([[[1.0], [2.0]]])
        weight_VD = torch.tensor([[math.log(3)], [0.0]])
        log_probs_BT, entropy_BT = linear_log_probs(hidden_BTD, weight_VD, torch.tensor([[0, 1]]), 2.0)
        p = [math.sqrt(3) / (1 + math.sqrt(3)), 0.75]  # logits (log 3) / 2 and log 3, against 0
        torch.testing.assert_close(log_probs_BT, torch.tensor([[math.log(p[0]), math.log(0.25)]]))
        expected_BT = torch.tensor([[-x * math.log(x) - (1 - x) * math.log(1 - x) for x in p]])
        torch.testing.assert_close(entropy_BT, expected_BT)

    def test_against_torch_distributions(self) -> None:
        inputs = self.inputs(torch.float32)
        log_probs_BT, entropy_BT = linear_log_probs(**inputs, temperature=0.7)
        logits_BTV = inputs["hidden_BTD"] @ inputs["weight_VD"].T + inputs["bias"]
        distribution = torch.distributions.Categorical(logits=logits_BTV / 0.7)
        torch.testing.assert_close(log_probs_BT, distribution.log_prob(inputs["ids_BT"]))
        torch.testing.assert_close(entropy_BT, distribution.entropy().detach())
        assert log_probs_BT.requires_grad
        assert not entropy_BT.requires_grad

    @pytest.mark.parametrize("tokens_a_chunk", [1, 7, 63])
    def test_chunks_change_nothing(self, tokens_a_chunk: int) -> None:
        whole, chunked = self.inputs(), self.inputs()
        expected = linear_log_probs(**whole, temperature=0.7)
        result = linear_log_probs(**chunked, temperature=0.7, max_elements=tokens_a_chunk * self.V)
        torch.testing.assert_close(result, expected)
        assert not result[1].requires_grad
        weights_BT = torch.randn(self.B, self.T, dtype=torch.float64)
        (expected[0] * weights_BT).sum().backward()
        (result[0] * weights_BT).sum().backward()
        for name in ("hidden_BTD", "weight_VD", "bias"):
            torch.testing.assert_close(chunked[name].grad, whole[name].grad)

    def test_no_tensor_exceeds_the_bound_when_chunked(self) -> None:
        bound = 8 * self.V
        with GreatestTensor() as greatest:
            log_probs_BT, _ = linear_log_probs(**self.inputs(), temperature=1.0, max_elements=bound)
            log_probs_BT.sum().backward()
        assert greatest.elements == bound

    @pytest.mark.parametrize(("max_elements", "kept"), [(LOGITS, True), (8 * V, False)])
    def test_chunks_keep_nothing_of_the_vocabulary_for_the_backward(self, max_elements: int, kept: bool) -> None:
        shapes = []

        def record(tensor: Tensor) -> Tensor:
            shapes.append(tensor.shape)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            linear_log_probs(**self.inputs(), temperature=1.0, max_elements=max_elements)
        assert any(shape[-1:] == (self.V,) and len(shape) > 1 for shape in shapes) == kept

    def test_no_tensor_exceeds_the_bound_without_gradient(self) -> None:
        with GreatestTensor() as greatest, torch.no_grad():
            linear_log_probs(**self.inputs(), temperature=1.0, max_elements=self.V)
        assert greatest.elements <= self.B * self.T * self.D

    def test_a_bound_below_one_token(self) -> None:
        inputs = self.inputs()
        result = linear_log_probs(**inputs, temperature=1.0, max_elements=1)
        torch.testing.assert_close(result, linear_log_probs(**inputs, temperature=1.0))

    def test_packed_tokens(self) -> None:
        inputs = self.inputs()
        expected = linear_log_probs(**inputs, temperature=0.7)
        mask_BT = lengths_to_mask(torch.tensor([3, 0, 16, 9]), self.T)
        inputs["hidden_BTD"], inputs["ids_BT"] = inputs["hidden_BTD"][mask_BT], inputs["ids_BT"][mask_BT]
        result = linear_log_probs(**inputs, temperature=0.7)
        torch.testing.assert_close(result, tuple(values_BT[mask_BT] for values_BT in expected))

    def test_gradcheck(self) -> None:
        inputs = self.inputs()
        hidden_BTD = inputs["hidden_BTD"][:, :3].detach().requires_grad_()

        def log_probs(hidden_BTD: Tensor, weight_VD: Tensor, bias: Tensor) -> Tensor:
            return linear_log_probs(hidden_BTD, weight_VD, inputs["ids_BT"][:, :3], 0.7, bias)[0]

        assert torch.autograd.gradcheck(log_probs, (hidden_BTD, inputs["weight_VD"], inputs["bias"]))

    def test_softmax_in_fp32_of_logits_in_bfloat16(self) -> None:
        inputs = self.inputs(torch.bfloat16)
        inputs.pop("bias")
        log_probs_BT, entropy_BT = linear_log_probs(**inputs, temperature=0.7)
        logits_BTV = inputs["hidden_BTD"] @ inputs["weight_VD"].T
        expected_BTV = (logits_BTV.float() / 0.7).log_softmax(-1)
        expected_BT = expected_BTV.gather(-1, inputs["ids_BT"].unsqueeze(-1)).squeeze(-1)
        assert (log_probs_BT.dtype, entropy_BT.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(log_probs_BT, expected_BT)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    @pytest.mark.parametrize("unused", [False, True])
    def test_to_the_last_bit_what_autograd_makes_of_log_softmax(
        self, dtype: torch.dtype, temperature: float, unused: bool
    ) -> None:
        inputs, plain = self.inputs(dtype), self.inputs(dtype)
        unused_V = torch.arange(self.V) % 5 == 3 if unused else None
        log_probs_BT, _ = linear_log_probs(**inputs, temperature=temperature, unused_V=unused_V)
        logits_BTV = F.linear(plain["hidden_BTD"].flatten(0, 1), plain["weight_VD"], plain["bias"])
        log_probs_BTV = scaled_logits(logits_BTV, temperature, unused_V).log_softmax(-1).view(self.B, self.T, self.V)
        expected_BT = log_probs_BTV.gather(-1, plain["ids_BT"][..., None])[..., 0]
        assert torch.equal(log_probs_BT, expected_BT)
        weights_BT = torch.randn(self.B, self.T)
        (log_probs_BT * weights_BT).sum().backward()
        (expected_BT * weights_BT).sum().backward()
        for name in ("hidden_BTD", "weight_VD", "bias"):
            assert torch.equal(inputs[name].grad, plain[name].grad)

    def test_two_tensors_of_the_vocabulary_are_all_that_a_backward_needs(self) -> None:
        """What is made anew beside the logits: their gradient, once."""
        logits_NV = torch.randn(5, self.V).requires_grad_()
        made = []

        class Made(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **kwargs or {})
                made.extend(x.data_ptr() for x in tree_leaves(result) if isinstance(x, Tensor) and x.numel() == size)
                return result

        size, copy_NV = logits_NV.numel(), logits_NV.clone()
        with Made():
            both = token_log_probs(
                torch.zeros(5, 1), lambda _: copy_NV, torch.zeros(5, dtype=torch.long), 0.7, self.V, entropy=False
            )
            both[0].sum().backward()
        assert len(set(made) - {copy_NV.data_ptr()}) == 1

    def test_extreme_logits(self) -> None:
        log_probs_BT, entropy_BT = linear_log_probs(
            torch.full((1, 2, 1), 1e4), torch.tensor([[1.0], [-1.0]]), torch.tensor([[0, 1]]), 1.0
        )
        assert log_probs_BT.tolist() == [[0.0, -2e4]]
        assert entropy_BT.tolist() == [[0.0, 0.0]]

    @pytest.mark.parametrize("max_elements", [LOGITS, 7 * V])
    @pytest.mark.parametrize("entropy", [True, False])
    def test_ids_that_no_token_has_take_no_part(self, max_elements: int, entropy: bool) -> None:
        """As if their rows were not there: log-probs, entropies and gradients; none is NaN."""
        unused_V = torch.arange(self.V) % 5 == 3
        inputs, small = self.inputs(), self.inputs()
        used = (~unused_V).nonzero().squeeze(1)
        options = {"temperature": 0.7, "max_elements": max_elements, "entropy": entropy}
        ids_BT = inputs["ids_BT"] % len(used)  # of the small vocabulary
        inputs["ids_BT"], small["ids_BT"] = used[ids_BT], ids_BT
        rows = {name: small[name][used].detach().requires_grad_() for name in ("weight_VD", "bias")}
        log_probs_BT, entropy_BT = linear_log_probs(**inputs, unused_V=unused_V, **options)
        expected = linear_log_probs(**small | rows, **options)
        torch.testing.assert_close((log_probs_BT, entropy_BT), expected, equal_nan=True)
        assert bool(entropy_BT.isfinite().all()) == entropy
        (log_probs_BT.sum() + expected[0].sum()).backward()
        torch.testing.assert_close(inputs["hidden_BTD"].grad, small["hidden_BTD"].grad)
        for name, few in rows.items():
            torch.testing.assert_close(inputs[name].grad[used], few.grad)
            assert not inputs[name].grad[unused_V].any()

    def test_an_id_that_no_token_has_is_impossible(self) -> None:
        log_probs_BT, _ = linear_log_probs(
            torch.ones(1, 1, 1), torch.tensor([[1.0], [50.0]]), torch.tensor([[1]]), 1.0,
            unused_V=torch.tensor([False, True]),
        )  # fmt: skip
        assert log_probs_BT.exp().tolist() == [[0.0]]

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
    def test_refuses(self, temperature: float) -> None:
        with pytest.raises(ValueError, match=r"temperature is .*allowed: above 0"):
            linear_log_probs(**self.inputs(), temperature=temperature)
