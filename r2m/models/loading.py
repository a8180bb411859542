"""Models and tokenizers from Hugging Face ids or local folders, and back: safetensors, no remote code.

On a CPU, weights loaded in the dtype that they were saved in are not read into memory: they are a private mapping
of the safetensors file, and all processes of a node share its pages until one writes to them, which copies those.
A mapped file may be deleted or replaced by renaming. Cut short in place it would end the process (SIGBUS): what is
loaded here while others may be writing it is renamed into place whole (r2m.stages).
"""

from __future__ import annotations

import functools
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants

from r2m.errors import UserError, brief
from r2m.models.adapters import check_no_adapters, whole_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOWHERE = "no such folder, not in the cache, and the hub cannot be reached"
TIMEOUT_S = 5.0  # to see whether the hub can be reached: its client would try for half a minute


@functools.cache
def hub_reachable() -> bool:
    """False, within seconds, without a network or where HF_HUB_OFFLINE is set; what is cached can still be used."""
    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:  # it answered
        return True
    except OSError:
        return False
    return True


def only_cached(model: str) -> bool:
    """Whether it can only come from what is cached of the hub."""
    return not Path(model).is_dir() and not hub_reachable()


def fetch(loader: Any, field: str, model: str, **options: Any) -> Any:
    """From a local folder, else from the hub, else from what is cached of the hub."""
    cached = only_cached(model)
    try:
        return loader.from_pretrained(model, trust_remote_code=False, local_files_only=cached, **options)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make the parsers and the models' own code raise anything
        raise _needed(field, model, NOWHERE if cached else brief(error)) from None


def _needed(field: str, model: str, reason: str) -> UserError:
    return UserError(f"{field} = {model!r}: a Hugging Face folder or hub id is needed; {reason}")


def config_file(model: str, field: str) -> Path | None:
    """The model's config.json, found without transformers; None where that will have to say why there is none.

    Raises UserError for a model that is neither a folder nor to be had of the hub.
    """
    if Path(model).is_dir():
        return Path(model) / "config.json"
    from huggingface_hub import hf_hub_download

    cached = only_cached(model)
    try:
        return Path(hf_hub_download(model, "config.json", local_files_only=cached))
    except Exception as error:  # the HTTP client's errors have no base class of the hub's own
        if cached:
            raise _needed(field, model, NOWHERE) from error
        return None


def load_config(model: str, field: str = "policy.model") -> Any:
    """Of adapters, that of the model that they are to."""
    from transformers import AutoConfig

    return fetch(AutoConfig, field, whole_model(model, field))


def check_one_label(config: Any, field: str, model: str) -> None:
    """Raises UserError for a configuration that is no reward model's, and for adapters."""
    check_no_adapters(model, field)
    if config.num_labels != 1:
        raise UserError(f"{field} = {model!r}: it has {config.num_labels} labels; a reward model has 1")


def load_tokenizer(model: str, field: str = "policy.model") -> PreTrainedTokenizerBase:
    """A tokenizer whose padding token differs from its end token, where it has a token to spare for it."""
    from transformers import AutoTokenizer

    base = whole_model(model, field)
    own = base == model or (Path(model) / "tokenizer_config.json").is_file()  # else that of what adapters are to
    tokenizer = fetch(AutoTokenizer, field, model if own else base)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{field} = {model!r}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        taken = {tokenizer.eos_token, tokenizer.bos_token}
        spare = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special and str(t) not in taken]
        # Without a spare one any id serves as filler: masks never look at ids. Only training a reward model
        # adds one, for other software's sake that finds the last token by comparing with the padding.
        tokenizer.pad_token = next((t for t in spare if "pad" in t.lower()), spare[0] if spare else None)
    return tokenizer
