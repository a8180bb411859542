"""Whether a local model's files can hold a model, seen without loading it: its weights, the sizes it names."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from r2m.errors import UserError, shown
from r2m.models import adapters

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SIZES = {"num_hidden_layers": 2000} | dict.fromkeys(
    ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
     "max_position_embeddings"), 2**31 - 1,
)  # fmt: skip


def check_weights(model: str, field: str) -> None:
    """Raises UserError where `model` is a local folder without whole safetensors, and for adapters where they are not
    a policy's, or the model that they are to is at fault. Only headers are read."""
    *below, folder = map(Path, adapters.chain(model, field))
    if below:
        if field != "policy.model":
            adapters.check_no_adapters(model, field)
        check_weights(str(below[-1]), field)
    if not folder.is_dir():
        return
    what = f"{field} = {model!r}"
    for name in _files(folder, what):
        try:
            with safe_open(folder / name, "np") as file:
                file.keys()
        except FileNotFoundError:
            raise UserError(f"{what}: {name}, which its index names, is missing") from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"{what}: {name} is damaged, or cut short ({error})") from None


def _files(folder: Path, what: str) -> list[str]:
    whole = adapters.ADAPTER_WEIGHTS if adapters.holds_adapters(str(folder)) else WHOLE
    if (folder / whole).exists():
        return [whole]
    if (folder / INDEX).exists():
        try:
            names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
            if names and all(isinstance(name, str) and Path(name).name == name for name in names):
                return sorted(names)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise UserError(f"{what}: {INDEX} is damaged")
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise UserError(
            f"{what}: its weights are pickles ({pickles[0]}), which run code when they are read; {whole} is needed: "
            "save_pretrained of transformers writes it"
        )
    raise UserError(f"{what}: no weights: neither {whole} nor {INDEX}")


def check_sizes(hf_config: Any) -> None:
    """Raises ValueError for a size that no model has, building one of a billion layers would not end, and for NaN."""
    for name, most in SIZES.items():
        value = getattr(hf_config, name, None)
        if isinstance(value, int) and not 1 <= value <= most:
            raise ValueError(f"{name} = {shown(value)}: from 1 to {most:,} is allowed")
    for name, value in vars(hf_config).items():
        if isinstance(value, float) and math.isnan(value):  # Python's JSON reads NaN; every output would be one
            raise ValueError(f"{name} = nan: a number is needed")
