"""Configurations to plan with: a model's own, the forum's, and those of the paper's models, as published, so that
a recipe can be planned where no hub is reachable. A run loads the model's own configuration.
"""

import json
from typing import Any

from r2m.errors import UserError
from r2m.models.adapters import whole_model
from r2m.models.dense import dense_config
from r2m.models.loading import config_file, load_config

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip
PYTHIA_1B = {
    "model_type": "gpt_neox", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 8,
    "intermediate_size": 8192, "vocab_size": 50304, "max_position_embeddings": 2048,
}  # fmt: skip
PYTHIA_2P8B = PYTHIA_1B | {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32,
                           "intermediate_size": 10240}  # fmt: skip
REWARD = {"num_labels": 1}

PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-3B-Instruct": {
        "model_type": "qwen2", "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "intermediate_size": 11008, "vocab_size": 151936,
        "max_position_embeddings": 32768, "tie_word_embeddings": True,
    },
    "meta-llama/Meta-Llama-3-8B-Instruct": LLAMA_8B | {"max_position_embeddings": 8192},
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": LLAMA_8B | REWARD | {"max_position_embeddings": 131072},
    "cleanrl/EleutherAI_pythia-1b-deduped__sft__tldr": PYTHIA_1B,
    "cleanrl/EleutherAI_pythia-1b-deduped__reward__tldr": PYTHIA_1B | REWARD,
    "cleanrl/EleutherAI_pythia-2.8b-deduped__sft__tldr": PYTHIA_2P8B,
    "cleanrl/EleutherAI_pythia-2.8b-deduped__reward__tldr": PYTHIA_2P8B | REWARD,
}  # fmt: skip


FORUM_WIDTH = 128  # of the embedded task's policy


def forum_dimensions(width: int, vocabulary: int) -> dict[str, Any]:
    """Of the embedded task's models: small Llamas."""
    return {
        "hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 4, "num_attention_heads": 4,
        "vocab_size": vocabulary, "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip


def config_for_planning(model: str, field: str) -> Any:
    """The model's own configuration, or the published dimensions where the hub cannot be reached.

    Of adapters it is that of the model that they are to. Of the plain dense families it is a DenseConfig, and
    transformers is not loaded. Raises UserError where there is none.
    """
    model = whole_model(model, field)
    try:
        path = config_file(model, field)
    except UserError:
        if model not in PUBLISHED:
            raise
        path = None
    if path is None and model in PUBLISHED:
        return dense_config(PUBLISHED[model], model)
    try:
        plain = None if path is None else dense_config(json.loads(path.read_text(encoding="utf-8")), model)
    except (OSError, ValueError, RecursionError):  # transformers says what is wrong with it
        plain = None
    return plain or load_config(model, field)
