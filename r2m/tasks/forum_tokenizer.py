"""The forum's tokenizer: a word with its leading space is one token, without it another one (App. F.5)."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r2m.tasks.forum import WORD, WORDS

SPECIAL = ("[PAD]", "[EOS]", "[UNK]")


def forum_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level Hugging Face tokenizer. `decode(encode(text)) == text` for text of the forum's words, with
    any of its spaces missing."""
    tokens = [*SPECIAL, *(space + word for word in WORDS for space in (" ", ""))]
    model = models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f" ?(?:{WORD})"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        clean_up_tokenization_spaces=False,
    )
