"""Low-rank adapters in a policy (Hu et al., 2021): they are trained, its own weights are not, and with them off it is
the reference. peft puts them in; it is imported where there are some.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from r2m.config import Lora
from r2m.core.seeds import generator
from r2m.errors import UserError, said
from r2m.models.adapters import ADAPTER_WEIGHTS
from r2m.models.layers import targeted

# Layers whose weights these families read past their forward: an adapter would never be seen.
READ_DIRECTLY = {
    **dict.fromkeys(("falcon_h1", "mamba2", "nemotron_h"), ("out_proj",)),
    **dict.fromkeys(("falcon_mamba", "mamba"), ("out_proj", "dt_proj")),
    "jamba": ("dt_proj",),
    "longcat_flash": ("classifier",),
}
Gather = Callable[[list[nn.Parameter]], AbstractContextManager[Any]]
LINEAR_CLASSES = "Linear", "Conv1D", "FalconLinear"  # of others' subclasses some give several outputs, or are grouped


def add_adapters(policy: PreTrainedModel, settings: Lora, seed: int) -> None:
    """Put adapters on the layers that `settings` names, in place, and freeze everything else.

    They change nothing yet: of each product B A, B is zero. A is drawn from `seed`, and nothing else is drawn from
    where it is. They are of the policy's dtype: what AdamW updates is fp32 with either (r2m.policy.descent).

    Raises UserError for a name that is no linear layer's, or the output layer's.
    """
    from peft import LoraConfig

    names = targeted(settings, linear_layers(policy))
    options: Any = {"lora_alpha": settings.alpha}  # peft says int, and divides
    config = LoraConfig(
        task_type="CAUSAL_LM", r=settings.rank, **options, target_modules=names, lora_dropout=0.0,
        bias="none",
    )  # fmt: skip
    with _drawn_from(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what peft does by itself for a Conv1D, or for experts
        policy.add_adapter(config)


def linear_layers(policy: PreTrainedModel) -> list[str]:
    """Names of the layers that can have adapters: all linear ones but the output layer, and those that share a weight
    with another (Zamba's blocks): what is added to one would not be added to both."""
    output, unfit = policy.get_output_embeddings(), READ_DIRECTLY.get(policy.config.model_type, ())
    linear = [(name, layer) for name, layer in policy.named_modules() if type(layer).__name__ in LINEAR_CLASSES]
    owners = Counter(id(layer.weight) for _, layer in linear)
    return [
        name
        for name, layer in linear
        if layer is not output and owners[id(layer.weight)] == 1 and name.split(".")[-1] not in unfit
    ]


@contextmanager
def adapters_off(policy: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The policy without what its adapters add: as it was before training, to the last bit."""
    layers = _adapted(policy)
    before = [layer.disable_adapters for layer in layers]
    try:
        for layer in layers:  # enable_adapters(False) would also say that they take no gradients
            layer._disable_adapters = True
        yield policy
    finally:
        for layer, off in zip(layers, before, strict=True):
            layer._disable_adapters = off


@torch.no_grad()
def merged_weights(
    policy: PreTrainedModel, gathered: Gather = lambda _: nullcontext()
) -> Iterator[tuple[str, Tensor]]:
    """All weights by the names that they have without adapters, a tied one once, what an adapter adds to one added:
    one after another, so that there is no second copy. `gathered`: makes parameters whole while one is out."""
    adapted = {id(_own_weight(layer)): layer for layer in _adapted(policy)}
    for name, p in _own_parameters(policy):
        layer = adapted.get(id(p))
        own = [] if layer is None else [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        with gathered([p, *own]):
            whole = p.detach() if layer is None else p + layer.get_delta_weight("default")
            yield name, whole


def own_weights(policy: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """As `merged_weights`, without what adapters add: of the reference."""
    return ((name, p.detach()) for name, p in _own_parameters(policy))


def merge_folder(model: PreTrainedModel, folder: str, named: str) -> None:
    """Add to the model's weights, in place, what the adapters in a PEFT folder add to its outputs.

    Raises UserError, one line that begins with `named`, where they are not this model's.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    try:
        with _drawn_from(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, LoraConfig.from_pretrained(folder))
            loaded: Any = set_peft_model_state_dict(adapted, load_file(Path(folder) / ADAPTER_WEIGHTS))
    except Exception as error:  # whatever peft raises for what is not this model's
        raise UserError(f"{named}: its adapters are not those of its model; {said(error)[:200]}") from None
    wrong = [*loaded.unexpected_keys, *(key for key in loaded.missing_keys if ".lora_" in key)]
    if wrong:
        raise UserError(f"{named}: its adapters are not those of its model; {wrong[0]} and {len(wrong) - 1} more")
    adapted.merge_and_unload()
    model.requires_grad_(True)
    model.name_or_path = model.config.name_or_path = folder  # what adapters to it will name


def _own_parameters(policy: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Those that are no adapter's, by the names that they have without adapters."""
    for name, p in policy.named_parameters():
        if ".lora_" not in name:
            yield name.replace(".base_layer", ""), p


def _adapted(policy: PreTrainedModel) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [layer for layer in policy.modules() if isinstance(layer, LoraLayer)]


def _own_weight(layer: Any) -> nn.Parameter:
    """What an adapter's product is added to: a layer's weight, or experts' in one tensor."""
    found: nn.Parameter = getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"))
    return found


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """What is drawn in here is drawn from the seed, and what is drawn afterwards as if nothing had been."""
    with torch.random.fork_rng(devices=[]):  # on the CPU, as all of it
        torch.set_rng_state(generator("adapters", seed, 0).get_state())
        yield
