"""Models as Hugging Face folders, and what would keep one from becoming such a folder: repaired, or found out, before
anything is trained."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate.utils import other
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from r2m.errors import UserError, reason_of

BARE_WEIGHTS = "weights.safetensors"
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")


class UnsavableError(UserError):
    """A model that cannot be written as a Hugging Face folder."""


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with _never_wrapped():
        model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def make_savable(model: PreTrainedModel) -> None:
    """Repair settings that transformers reads and does not write, as published models have.

    A temperature (or top_p, ...) without do_sample is what was meant: do_sample becomes true. Of what else does not
    validate in generation_config.json, each setting that is at fault is dropped. Nothing here reads them but for the
    ids of tokens, which are kept.
    """
    for part in (model.config, model.config.get_text_config()):  # generation's settings in config.json: an old habit
        with suppress(Exception):  # of a family's own code: what is beyond this, `check_savable` finds
            for key in part._get_generation_parameters():
                delattr(part, key)
    if not model.can_generate() or _valid(model.generation_config):
        return
    known, kept = GenerationConfig(), GenerationConfig()
    found = model.generation_config.to_diff_dict()
    settings = {key: value for key, value in found.items() if hasattr(known, key)}
    if any(not _valid(GenerationConfig(), key, settings[key]) for key in SAMPLING if key in settings):
        settings["do_sample"] = True
    for key in sorted(settings, key=lambda key: key not in ("do_sample", "num_beams")):  # others need these
        if not _valid(kept, key, settings[key]):
            setattr(kept, key, getattr(known, key))
    model.generation_config = kept


def _valid(settings: GenerationConfig, key: str | None = None, value: Any = None) -> bool:
    """Whether they could be saved, with one of them set if `key` is given: it then stays set."""
    if key is not None:
        setattr(settings, key, value)
    try:
        settings.validate(strict=True)
    except (ValueError, TypeError):
        return False
    return True


def check_savable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: Path, what: str) -> None:
    """Save all but the weights, in a folder in `where` that is gone afterwards.

    Raises UnsavableError that begins with `what` where that fails, or where weights are shared that the model's class
    does not know as such; OSError where the disk is at fault.
    """
    with told(f"{what}: it could not be saved after the training"):
        with TemporaryDirectory(dir=where, prefix=".trial-") as folder, _never_wrapped():
            model.save_pretrained(folder, state_dict={})
            tokenizer.save_pretrained(folder)
        remove_tied_weights_from_state_dict(model.state_dict(), model)


@contextmanager
def _never_wrapped() -> Iterator[None]:
    """Saving asks whether a model is an engine of DeepSpeed's, and imports that to ask, for four seconds. None is."""
    asked = other.is_deepspeed_available
    other.is_deepspeed_available = lambda: False
    try:
        yield
    finally:
        other.is_deepspeed_available = asked


@contextmanager
def told(what: str, kind: type[Exception] = UnsavableError) -> Iterator[None]:
    """What a model's own code raises where it is saved becomes a `kind`; what is the disk's fault stays as it is."""
    try:
        yield
    except (OSError, SafetensorError):
        raise
    except Exception as error:
        raise kind(f"{what} ({reason_of(error)})") from error


def save_weights(folder: Path, model: PreTrainedModel) -> Path:
    """The bare weights, each once, by their names in the module: where it cannot be saved as a folder."""
    tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / BARE_WEIGHTS)
    return folder / BARE_WEIGHTS
