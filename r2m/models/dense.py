"""Configurations of the plain dense families, read and counted by arithmetic, without torch and transformers: they
take seconds to load.

Only what is certain is read here. A key that is not known, a value that transformers might refuse or understand in
another way, another family: `dense_config` gives None, and transformers is asked.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from r2m.models.weights import SIZES


class Family(NamedTuple):
    """How a family departs from Llama."""

    gated: bool = True  # the MLP has a second way in, by which the first is multiplied
    norms: int = 1  # values of a norm for each of its channels: with a bias 2
    head_norms: bool = False  # of queries and keys, each as wide as a head
    bias_in: bool | None = False  # of queries, keys and values; None: attention_bias, of the output projection, too
    mlp_bias: bool | None = False  # None: mlp_bias
    attention_bias: bool = False  # where the configuration says nothing
    needed: frozenset[str] = frozenset()  # keys that the family has defaults of its own for


FAMILIES = {
    "llama": Family(bias_in=None, mlp_bias=None),
    "mistral": Family(needed=frozenset({"num_key_value_heads"})),
    "qwen2": Family(bias_in=True, needed=frozenset({"num_key_value_heads"})),
    "qwen3": Family(head_norms=True, bias_in=None, needed=frozenset({"num_key_value_heads", "head_dim"})),
    "gpt_neox": Family(gated=False, norms=2, bias_in=None, attention_bias=True, mlp_bias=True),
}  # fmt: skip
NEEDED = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
    "max_position_embeddings",
}  # fmt: skip


PARAMETERS_AT_MOST = 2**42  # torch cannot count many more


class DenseConfig(SimpleNamespace):
    """What a config.json says, as transformers' own would show it; r2m.models.families reads either."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int

    def get_text_config(self, decoder: bool = False) -> "DenseConfig":
        return self

    @property
    def gated(self) -> bool:
        return FAMILIES[self.model_type].gated

    @property
    def linear(self) -> dict[str, int]:
        """Inputs and outputs of each linear layer in one of the model's layers."""
        D, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        if not self.gated:
            return {
                "query_key_value": D + queries + 2 * keys, "dense": queries + D, "dense_h_to_4h": D + inner,
                "dense_4h_to_h": inner + D,
            }  # fmt: skip
        return {
            "q_proj": D + queries, "k_proj": D + keys, "v_proj": D + keys, "o_proj": queries + D,
            "gate_proj": D + inner, "up_proj": D + inner, "down_proj": inner + D,
        }  # fmt: skip

    @property
    def layer_parameters(self) -> int:
        """Of each layer, all being alike."""
        family, D, inner = FAMILIES[self.model_type], self.hidden_size, self.intermediate_size
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        bias = self.attention_bias if family.bias_in is None else family.bias_in
        inward = queries + 2 * keys
        attention = D * inward + queries * D + bias * inward + (family.bias_in is None and bias) * D
        ways = 2 if family.gated else 1
        mlp_bias = self.mlp_bias if family.mlp_bias is None else family.mlp_bias
        mlp = (ways + 1) * D * inner + mlp_bias * (ways * inner + D)
        return attention + mlp + 2 * family.norms * D + family.head_norms * 2 * self.head_dim

    def parameters(self, head: int) -> int:
        """Of the whole model, with a head of so many values: of its own for a reward model, none where it is tied."""
        norm = FAMILIES[self.model_type].norms * self.hidden_size
        return self.vocab_size * self.hidden_size + self.num_hidden_layers * self.layer_parameters + norm + head


def dense_config(tree: Any, name: str = "") -> DenseConfig | None:
    """Of the tree of a config.json; None where it isn't certain what transformers would make of it."""
    family = FAMILIES.get(str(tree.get("model_type"))) if isinstance(tree, dict) and _plain(tree) else None
    if family is None or not (NEEDED | family.needed) <= {key for key, value in tree.items() if value is not None}:
        return None
    heads, D = tree["num_attention_heads"], tree["hidden_size"]
    keys = tree.get("num_key_value_heads") or heads
    labels, number = tree.get("id2label"), tree.get("num_labels")
    pad = tree.get("pad_token_id")
    if D % heads or heads % keys or (labels and number) or (pad is not None and pad >= tree["vocab_size"]):
        return None
    if tree.get("layer_types") not in (None, ["full_attention"] * tree["num_hidden_layers"]):
        return None
    if tree["model_type"] == "gpt_neox" and (keys != heads or tree.get("head_dim") not in (None, D // heads)):
        return None
    usual = {"attention_bias": family.attention_bias, "mlp_bias": False, "tie_word_embeddings": False}
    made = usual | {key: value for key, value in tree.items() if value is not None}
    made |= {"num_key_value_heads": keys, "head_dim": tree.get("head_dim") or D // heads}
    made |= {"num_labels": len(labels) if labels else number or 2, "pad_token_id": pad}
    config = DenseConfig(**made | {"dtype": tree.get("dtype") or tree.get("torch_dtype"), "name_or_path": name})
    return None if config.head_dim % 2 or config.parameters(head=0) > PARAMETERS_AT_MOST else config


def _plain(tree: dict[str, Any]) -> bool:
    """Whether every key is known, and every value of the kind that it should be."""
    return all(key in NULLABLE if value is None else key in KEYS and KEYS[key](value) for key, value in tree.items())


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _among(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) is type(allowed[0]) and value in allowed


def _size(name: str) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 1 <= value <= SIZES.get(name, SIZES["hidden_size"])


def _token(value: Any) -> bool:
    return type(value) is int and value >= 0


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _fraction(value: Any) -> bool:
    return type(value) is float and 0 < value < 1


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _labels(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 0 and [*value] == [str(i) for i in range(len(value))]


def _rope(value: Any) -> bool:
    """Frequencies that depend on the position alone: not those of Phi-3, which change with the sequence's length."""
    if not isinstance(value, dict):
        return False
    scaled = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    numbers = {key: number for key, number in value.items() if key != "rope_type"}
    asked = scaled if value.get("rope_type") == "llama3" else set()
    return (
        value.get("rope_type", "default") in ("default", "llama3")
        and asked <= numbers.keys() <= asked | {"rope_theta", "partial_rotary_factor"}
        and all(map(_positive, numbers.values()))
    )


KEYS: dict[str, Callable[[Any], bool]] = (
    {key: _size(key) for key in (*SIZES, "head_dim", "num_labels", "sliding_window")}
    | dict.fromkeys(("pad_token_id", "bos_token_id"), _token)
    | dict.fromkeys(
        ("attention_bias", "mlp_bias", "tie_word_embeddings", "use_cache", "use_parallel_residual",
         "rope_interleaved", "use_mrope", "is_llama_config", "is_decoder"), _is(bool),
    )
    | dict.fromkeys(("use_sliding_window",), _among(False))
    | dict.fromkeys(
        ("attention_dropout", "hidden_dropout", "classifier_dropout", "rotary_pct", "partial_rotary_factor"), _share,
    )
    | dict.fromkeys(("rope_theta", "rotary_emb_base"), _positive)
    | dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "initializer_range"), _fraction)
    | dict.fromkeys(("dtype", "torch_dtype"), _among("float32", "bfloat16", "float16"))
    | dict.fromkeys(("transformers_version", "_name_or_path", "model_type"), _is(str))
    | {
        "architectures": _is(list),
        "eos_token_id": lambda value: all(map(_token, value if isinstance(value, list) else [value])),
        "hidden_act": _among("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"),
        "id2label": _labels,
        "label2id": _is(dict),
        "layer_types": _is(list),
        "max_window_layers": _token,
        "pretraining_tp": _token,
        "problem_type": _among("regression"),
        "reward_mean": lambda value: type(value) is float and math.isfinite(value),
        "reward_seen": lambda value: type(value) is float and math.isfinite(value),
        "rope_parameters": _rope,
        "rope_scaling": _rope,
    }
)  # fmt: skip
NULLABLE = {
    "architectures", "bos_token_id", "dtype", "eos_token_id", "id2label", "label2id", "layer_types",
    "num_key_value_heads", "pad_token_id", "problem_type", "rope_parameters", "rope_scaling", "sliding_window",
    "torch_dtype", "transformers_version",
}  # fmt: skip
