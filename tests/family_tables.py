"""What becomes of every family: the tables that the contract tests check, and docs/families.md made of them.

python -m tests.family_tables > docs/families.md
"""

from __future__ import annotations

import textwrap

from r2m.models.families import CacheUse
from tests.families import CLASSIFIERS, FAMILIES, LEFT_OUT, NO_CLASSIFIER, VARIANTS

# How those policies run that don't share a prompt's keys and values among its responses.
CACHED = frozenset({
    "bamba", "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "falcon_h1", "falcon_mamba", "git",
    "granitemoehybrid", "inkling_text", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "mamba", "mamba2", "marian",
    "mbart", "mvp", "nemotron_h", "olmo_hybrid", "pegasus", "plbart", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text",
    "qwen3_5_text", "qwen3_next", "roformer", "trocr", "zamba", "zamba2", "zaya",
})  # fmt: skip
RERUN = frozenset({
    "blt", "camembert", "data2vec-text", "deepseek_v4", "minimax", "moshi", "openai-gpt", "qwen4_exp",
    "qwen4_exp_text", "recurrent_gemma", "roberta", "roberta-prelayernorm", "rwkv", "xlm-roberta",
    "xlm-roberta-xl", "xlstm", "xmod",
})  # fmt: skip

# Policies that are refused: what the one line says, and why in other words where it does not say it.
REFUSED: dict[str, str] = {
    "cpmant": "it reads a prompt in both directions",
    "emu3": "Unrecognized configuration class",
    "mllama": "Unrecognized configuration class",
    "prophetnet": "it predicts several tokens at once, from hidden states of their own",
    "reformer": "its attention depends on the length of the whole sequence",
    "xlm": "it reads a sequence in both directions",
    "xlnet": "it reads a sequence in both directions",
    "bert, as published": "it reads a sequence in both directions",
    "gemma3_text, both directions": "it reads a sequence in both directions",
    "llama, dynamic NTK, beyond": "run in batches it does not give what it gives for one sequence",
    "phi3, long rope, beyond": "run in batches it does not give what it gives for one sequence",
}
SAID = {
    "emu3": "transformers saves its text model as one that it cannot load",
    "mllama": "transformers saves its text model as one that it cannot load",
    "llama, dynamic NTK, beyond": "a context beyond which positions depend on the longest sequence of a batch",
    "phi3, long rope, beyond": "a context beyond which positions depend on the longest sequence of a batch",
}

# Reward models that are refused: what the one line says, and why in other words where it does not say it.
END_TOKENS, PADDING = (
    "it reads at end tokens, and a response that was cut off has none",
    "padding changes its scores",
)
REWARD_REFUSED: dict[str, str] = {
    **dict.fromkeys(("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5"), END_TOKENS),
    **dict.fromkeys(("convbert", "fnet", "mobilebert", "nystromformer", "reformer", "xlnet", "yoso"), PADDING),
    "eurobert": "read at the last token, two sequences of a padded batch score",
    "funnel": "it can't be used as a reward model; RuntimeError",
    **dict.fromkeys(("t5gemma", "t5gemma2"), "it can't be used as a reward model; TypeError"),
}
REWARD_SAID = {
    "eurobert": "it scores the mean over all tokens",
    "funnel": "its pooling fails on short sequences",
    **dict.fromkeys(("t5gemma", "t5gemma2"), "its code fails where it is asked to keep no cache"),
}

ALL = (*FAMILIES, *VARIANTS)


def way_expected(name: str) -> CacheUse:
    return CacheUse.CACHED if name in CACHED else CacheUse.RERUN if name in RERUN else CacheUse.SHARED


def document() -> str:
    """docs/families.md."""
    right = {way: [n for n in ALL if n not in REFUSED and way_expected(n) is way] for way in CacheUse}
    rewards = [name for name in CLASSIFIERS if name not in REWARD_REFUSED]
    parts = ["# Model families", HEAD]
    for way in CacheUse:
        parts += [f"**{len(right[way])}: {way.value}.**", _listed(right[way])]
    refused = REFUSED | SAID
    parts += [f"**{len(refused)} are refused.**", _table(refused)]
    parts += [f"**{len(LEFT_OUT)} are not tried.**", _table(LEFT_OUT)]
    parts += ["## As a reward model", REWARD_HEAD, f"**{len(rewards)} are right.**", _listed(rewards)]
    parts += [f"**{len(REWARD_REFUSED)} are refused.**", _table(REWARD_REFUSED | REWARD_SAID)]
    parts += [f"**{len(NO_CLASSIFIER)} are not tried.**", _table(NO_CLASSIFIER)]
    return "\n\n".join(parts) + "\n"


HEAD = """\
Every family of causal language models that transformers 5.19 ships, tiny and random, was run as a policy by
`tests/contract/test_families.py`, and every family of sequence classifiers as a reward model by
`test_reward_families.py` beside it. This page is made of their tables (`python -m tests.family_tables`), and
a test holds it to them. After a comma: settings that published models of a family have.

## As a policy

Right means: the log-probs, hidden states and gradients of the trainer's forward, and the log-probs that the
sampler gives, are those of the model's own plain forward of one sequence, to 1e-3. A model is also compared
with its own plain forward when it is loaded, whatever its family, and refused in one line where they differ.
Encoders (BERT) are decoders here: `is_decoder` is true in their configuration."""

REWARD_HEAD = """\
Right means: the score of a sequence beside others of other lengths is the model's own of that sequence
alone, to 1e-3. That is checked when one is loaded, too."""


def _listed(names: list[str]) -> str:
    return textwrap.fill(
        ", ".join(f"`{name}`" for name in names), 110, break_long_words=False, break_on_hyphens=False
    )


def _table(reasons: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(f"`{name}`")
    rows = [f"| {', '.join(names)} | {why} |" for why, names in by_reason.items()]
    return "\n".join(["| | why |", "|---|---|", *rows])


if __name__ == "__main__":
    print(document(), end="")
