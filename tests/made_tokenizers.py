"""Chat templates as model families have them, in few words, and tokenizers: of bytes for any template, and of
words as sentencepiece writes them.

Each has its family's header, end of turn and habits: a newline after the turn, trimmed contents, an empty thinking
block in front of the last answer, a thought that the header opens, an end token behind the end of the turn.
"""

import re

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _turns(user: str, assistant: str, header: str, start: str = "", system: str | None = None) -> str:
    """A template that writes each message by its role; `system` None refuses one."""
    refused = "{{ raise_exception('System role not supported') }}"
    return (
        f"{start}{{% for m in messages %}}{{% if m.role == 'user' %}}{user}{{% elif m.role == 'assistant' %}}"
        f"{assistant}{{% else %}}{refused if system is None else system}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{header}{{% endif %}}"
    )


_LLAMA3 = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
_GEMMA = "<start_of_turn>{}\n{{{{ m.content | trim }}}}<end_of_turn>\n"
_INST = "[INST] {{ m.content }} [/INST]"
_THOUGHT = "{% set answer = m.content.split('</think>')[-1] %}"

TEMPLATES = {
    "qwen2.5": CHATML,
    "smollm2": CHATML,
    "qwen3": _turns(
        "<|im_start|>user\n{{ m.content }}<|im_end|>\n",
        "<|im_start|>assistant\n{% if '</think>' in m.content %}"
        "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
        "{% set answer = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{% else %}{% set thought = '' %}{% set answer = m.content %}{% endif %}"
        "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ answer }}<|im_end|>\n",
        "<|im_start|>assistant\n",
        system="<|im_start|>system\n{{ m.content }}<|im_end|>\n",
    ),
    "gemma": _turns(
        _GEMMA.format("user"), _GEMMA.format("model"), "<start_of_turn>model\n", "{{ bos_token }}"
    ),
    "llama2": _turns(
        "{{ bos_token }}[INST] {{ m.content | trim }} [/INST]",
        " {{ m.content | trim }} {{ eos_token }}",
        "",
    ),
    "llama3": _turns(
        _LLAMA3, _LLAMA3, "<|start_header_id|>assistant<|end_header_id|>\n\n", "{{ bos_token }}", _LLAMA3
    ),
    "mistral": _turns(_INST, " {{ m.content }}{{ eos_token }}", "", "{{ bos_token }}"),
    "phi3": _turns(
        "<|user|>\n{{ m.content }}<|end|>\n",
        "<|assistant|>\n{{ m.content }}<|end|>\n",
        "<|assistant|>\n{% else %}{{ eos_token }}",
    ),
    "phi4": _turns(
        "<|im_start|>user<|im_sep|>{{ m.content }}<|im_end|>",
        "<|im_start|>assistant<|im_sep|>{{ m.content }}<|im_end|>",
        "<|im_start|>assistant<|im_sep|>",
    ),
    "zephyr": _turns(
        "<|user|>\n{{ m.content + eos_token }}\n",
        "<|assistant|>\n{{ m.content + eos_token }}\n",
        "<|assistant|>\n",
    ),
    "cohere": _turns(
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{ m.content | trim }}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{{ m.content | trim }}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "{{ bos_token }}",
    ),
    "deepseek-r1": _turns(
        "<|User|>{{ m.content }}",
        _THOUGHT + "<|Assistant|>{{ answer }}{{ eos_token }}",
        "<|Assistant|><think>\n",
        "{{ bos_token }}",
    ),
    "olmo2": _turns(
        "<|user|>\n{{ m.content }}\n",
        "<|assistant|>\n{{ m.content + eos_token }}{% if not loop.last %}\n{% endif %}",
        "<|assistant|>\n",
        "{{ bos_token }}",
    ),
    "granite": _turns(
        "<|start_of_role|>user<|end_of_role|>{{ m.content }}<|end_of_text|>\n",
        "<|start_of_role|>assistant<|end_of_role|>{{ m.content }}<|end_of_text|>\n",
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    "glm4": _turns("<|user|>\n{{ m.content }}", "<|assistant|>\n{{ m.content }}", "<|assistant|>\n", "[gMASK]"),
    "harmony": _turns(
        "<|start|>user<|message|>{{ m.content }}<|end|>",
        "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>",
        "<|start|>assistant",
    ),
    "alpaca": _turns(
        "### Instruction:\n{{ m.content }}\n\n",
        "### Response:\n{{ m.content }}\n\n",
        "### Response:\n",
    ),
}  # fmt: skip

_SPECIAL = re.compile(
    r"<[|｜][^<>{}'\"\s]+?[|｜]>|<\|[a-z_]+>|<[a-z_]+\|>|<(?:start|end)_of_[a-z]+>|<end_of_utterance>|\[gMASK\]"
)


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """Every byte a token, and the special tokens that the template names; "<bos>", "<eos>" and "<pad>" besides."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=template
    )
    tokenizer.add_tokens(sorted(set(_SPECIAL.findall(template or ""))), special_tokens=True)
    return tokenizer


def sentencepiece_tokenizer(style: str = "legacy", template: str | None = None) -> PreTrainedTokenizerFast:
    """A BPE of a few words, with "▁" for a space and bytes for what it does not know.

    `style`: "legacy" puts a space in front of any text (Llama 2, Mistral v1, Zephyr); "always" and "first" where
    it has none yet; "never" (Gemma) as it is. All but "never" take a space off in front when they decode.
    """
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{i:02X}>": 3 + i for i in range(256)}
    merges: list[tuple[str, str]] = []
    for word in ("mom", "sold", "sad", "TL;DR:", "[INST]", "[/INST]"):
        for end in range(2, len(word) + 1):
            if (pair := (word[: end - 1], word[end - 1])) not in merges:
                merges.append(pair)
        merges.append(("▁", word))
    for token in (*"▁abcdefghijklmnopqrstuvwxyzTLDRINS;:.,?[]/<|>", *("".join(pair) for pair in merges)):
        vocabulary.setdefault(token, len(vocabulary))
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    text = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if style == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", style, split=False)
    backend.decoder = decoders.Sequence([*text, *([] if style == "never" else [decoders.Strip(" ", 1, 0)])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )
