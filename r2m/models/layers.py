"""Names of the linear layers that adapters can be put on: of well-known families, before a model is there."""

from collections.abc import Iterable

from r2m.config import Lora
from r2m.errors import UserError, shown

LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# All but the output layer.
LINEAR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "olmo", "olmo2", "qwen2", "qwen3", "smollm3"), LLAMA
    ),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "opt": ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
}


def check_targets(lora: Lora, layers: Iterable[str]) -> None:
    """Raises UserError where a target is none of these layers, named by all or the last of its parts."""
    names = list(layers)
    if lora.targets == "all-linear" and not names:
        raise UserError("policy.lora: the policy has no linear layer to put adapters on")
    for target in () if lora.targets == "all-linear" else lora.targets:
        if not any(is_target(name, (target,)) for name in names):
            allowed = ", ".join(dict.fromkeys(name.split(".")[-1] for name in names))
            raise UserError(
                f"policy.lora.targets = {shown(target)}: no linear layer of the policy, other than the output layer, "
                f"is called that; all-linear, or some of {allowed}"
            )


def is_target(layer: str, targets: tuple[str, ...]) -> bool:
    """As peft sees it: a layer's name ends with a target, at a part's beginning."""
    return any(layer == target or layer.endswith(f".{target}") for target in targets)
