"""PEFT folders: adapters to a model that is elsewhere. What they say of themselves, seen without loading anything."""

import json
from pathlib import Path

from r2m.errors import UserError, shown

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def chain(model: str, field: str) -> list[str]:
    """The whole model at the bottom of `model`, then the folders of adapters that come onto it one after another,
    `model` itself last; `model` alone where it is whole.

    Raises UserError for adapters that are not LoRA's, or whose model isn't there.
    """
    found = [model]
    while (base := _base(found[0], field)) is not None:
        if base in found:
            raise UserError(f"{field} = {model!r}: its adapters are to a model that is made of them, {shown(base)}")
        found.insert(0, base)
    return found


def whole_model(model: str, field: str) -> str:
    """The model at the bottom of `model`: itself where it has no adapters. Raises as `chain`."""
    return chain(model, field)[0]


def holds_adapters(model: str) -> bool:
    return (Path(model) / ADAPTER_CONFIG).is_file()


def check_no_adapters(model: str, field: str) -> None:
    """Raises UserError where only a whole model will do."""
    if holds_adapters(model):
        raise UserError(f"{field} = {model!r}: it holds adapters ({ADAPTER_CONFIG}); a whole model is needed")


def _base(model: str, field: str) -> str | None:
    """The model that adapters in the folder `model` are to; None where it holds none."""
    if not holds_adapters(model):
        return None
    what = f"{field} = {model!r}"
    if (Path(model) / "config.json").exists():
        raise UserError(f"{what}: it holds both a whole model (config.json) and adapters ({ADAPTER_CONFIG})")
    try:
        settings = json.loads((Path(model) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        kind, base = settings["peft_type"], settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{what}: its {ADAPTER_CONFIG} is damaged, or names no base_model_name_or_path") from None
    if kind != "LORA" or settings.get("megatron_config"):  # whose name of a module peft would import
        raise UserError(f"{what}: adapters of peft_type = 'LORA' without Megatron are allowed, not {shown(kind)}")
    if not isinstance(base, str) or not base or (Path(base).is_absolute() and not Path(base).is_dir()):
        raise UserError(
            f"{what}: the model that its adapters are to, {shown(base)}, is not there; base_model_name_or_path in "
            f"its {ADAPTER_CONFIG} says where"
        )
    return base
