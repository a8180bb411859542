"""Names of the linear layers that adapters can be put on: of well-known families, before a model is there."""

from collections.abc import Iterable

from r2m.config import Lora
from r2m.errors import UserError, shown

LIKE_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# All but the output layer.
LINEAR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "olmo", "olmo2", "qwen2", "qwen3", "smollm3"),
        LIKE_LLAMA,
    ),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "opt": ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
}


def check_targets(lora: Lora, model_type: str) -> None:
    """Raises UserError for a target that is no layer's of a family whose layers are known."""
    if layers := LINEAR.get(model_type):
        last_parts = tuple(target.split(".")[-1] for target in lora.targets)
        targeted(lora.model_copy(update={"targets": last_parts}), layers)


def targeted(lora: Lora, layers: Iterable[str]) -> list[str]:
    """Those of the layers that a setting names, by the whole name or its last parts, as peft sees it.

    Raises UserError for a target that names none.
    """
    names = list(layers)
    found: dict[str, None] = {}
    for target in lora.targets:
        own = [n for n in names if target in ("all-linear", n) or n.endswith(f".{target}")]
        if not own:
            allowed = ", ".join(dict.fromkeys(name.split(".")[-1] for name in names))
            raise UserError(
                f"policy.lora.targets = {shown(target)}: no linear layer of the policy, other than the output layer, "
                f"is called that; all-linear, or some of {allowed or 'none'}"
            )
        found |= dict.fromkeys(own)
    return list(found)
