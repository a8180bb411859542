"""Dimensions of the paper's models, so that a recipe can be planned where no hub is reachable.

As published in each model's config.json. Only planning reads this; a run loads the model's own configuration.
"""

from typing import Any

from transformers import AutoConfig

from r2m.errors import UserError
from r2m.models.loading import load_config

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


def config_for_planning(model: str, field: str) -> Any:
    """The model's own configuration, or the published dimensions where the hub cannot be reached."""
    try:
        return load_config(model, field)
    except UserError:
        if model not in PUBLISHED:
            raise
        return AutoConfig.for_model(**PUBLISHED[model])
