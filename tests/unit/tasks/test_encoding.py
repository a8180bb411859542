"""Text in context: every space told apart, whatever the tokenizer puts in front of a text."""

import pytest
from made_tokenizers import chat_tokenizer, sentencepiece_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from r2m.reward.inputs import response_ids
from r2m.stages.sft import _encode
from r2m.tasks.encoding import decode, encode
from r2m.tasks.forum import forum_tokenizer
from r2m.tasks.prompt import Prompt, prompt_ids

STYLES = ["legacy", "always", "first", "never"]
TEXTS = ["mom", " mom", "  mom sold", "\nmom", "\n\n sad", "é", " ", "mom.", "?"]


def llama() -> LlamaTokenizer:
    """The class by which transformers reads Llama 2's tokenizer."""
    made = sentencepiece_tokenizer("first")
    backend = made.backend_tokenizer.model
    vocabulary = made.get_vocab()
    merges = [("m", "o"), ("mo", "m"), ("▁", "mom"), ("s", "o"), ("so", "l"), ("sol", "d"), ("▁", "sold")]
    assert type(backend) is models.BPE
    return LlamaTokenizer(vocab=vocabulary, merges=merges)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("style", [*STYLES, "llama"])
def test_text_comes_back_as_it_was(style: str, text: str) -> None:
    tokenizer = llama() if style == "llama" else sentencepiece_tokenizer(style)
    assert decode(tokenizer, encode(tokenizer, text)) == text


@pytest.mark.parametrize("style", [*STYLES, "llama"])
def test_a_word_with_its_space_is_another_token_than_without(style: str) -> None:
    tokenizer = llama() if style == "llama" else sentencepiece_tokenizer(style)
    with_space, without = tokenizer.convert_tokens_to_ids(["▁mom", "mom"])
    assert (encode(tokenizer, " mom"), encode(tokenizer, "mom")) == ([with_space], [without])
    assert (decode(tokenizer, [with_space]), decode(tokenizer, [without])) == (" mom", "mom")


@pytest.mark.parametrize("style", STYLES)
def test_in_context_is_what_the_whole_text_gives(style: str) -> None:
    tokenizer = sentencepiece_tokenizer(style)
    for response in (" mom sold", "mom", "\nmom"):
        whole = tokenizer("TL;DR:" + response, add_special_tokens=False)["input_ids"]
        assert tokenizer("TL;DR:", add_special_tokens=False)["input_ids"] + encode(tokenizer, response) == whole


def test_a_tokenizer_that_tidies_spaces_still_has_the_first_one() -> None:
    """A unigram model of the T5 kind: newlines are spaces to it, and spaces are never doubled."""
    pieces = [("<unk>", 0.0), ("▁", -9.0), ("▁mom", -5.0), ("mom", -5.0), (".", -9.0)]
    backend = Tokenizer(models.Unigram(pieces, 0))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    backend.decoder = decoders.Metaspace("▁", "always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert (encode(tokenizer, " mom mom"), encode(tokenizer, "mom")) == ([2, 2], [3])
    assert (decode(tokenizer, [2, 2]), decode(tokenizer, [3])) == (" mom mom", "mom")


@pytest.mark.parametrize("text", [*TEXTS, " mom sold", ""])
def test_other_tokenizers_are_as_they_were(text: str) -> None:
    for tokenizer in (chat_tokenizer(None), forum_tokenizer()):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encode(tokenizer, text) == ids
        assert decode(tokenizer, ids) == tokenizer.decode(ids, skip_special_tokens=True)


def test_special_tokens_are_not_shown() -> None:
    tokenizer = sentencepiece_tokenizer()
    mom, sad = tokenizer.convert_tokens_to_ids(["▁mom", "sad"])
    assert decode(tokenizer, [mom, sad, tokenizer.eos_token_id]) == " momsad"
    assert decode(tokenizer, []) == ""


@pytest.mark.parametrize("style", STYLES)
def test_both_stages_tell_a_completion_with_a_space_from_one_without(style: str) -> None:
    tokenizer, prompt = sentencepiece_tokenizer(style), Prompt(text="TL;DR:")
    asked, end = prompt_ids(prompt, tokenizer), tokenizer.eos_token_id
    with_space, without = tokenizer.convert_tokens_to_ids(["▁mom", "mom"])
    for text, token in ((" mom", with_space), ("mom", without)):
        assert _encode(tokenizer, prompt, text) == ([*asked, token, end], len(asked))
        assert response_ids(tokenizer, prompt, text) == [*asked, token, end]


def test_an_end_token_that_the_text_brings_is_not_doubled() -> None:
    tokenizer, prompt = sentencepiece_tokenizer(), Prompt(text="TL;DR:")
    assert response_ids(tokenizer, prompt, " mom</s>") == response_ids(tokenizer, prompt, " mom")
    assert _encode(tokenizer, prompt, " mom</s>") == _encode(tokenizer, prompt, " mom")
