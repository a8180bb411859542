"""What a policy is given for a prompt."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r2m.errors import UserError
from r2m.tasks.prompt import Prompt, render

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }} [EOS] {% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHAT = ({"role": "user", "content": "a b"},)


def tokenizer(template: str | None = None, *, before: str = "", after: str = "") -> PreTrainedTokenizerFast:
    """Splits at spaces, and puts special tokens around plain text."""
    words = ["[UNK]", "[PAD]", "[EOS]", "[BOS]", "[user]", "[assistant]", "a", "b"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(), special_tokens=[("[BOS]", 3), ("[EOS]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="[EOS]",
        pad_token="[PAD]",
        bos_token="[BOS]",
        unk_token="[UNK]",
        chat_template=template,
    )


@pytest.mark.parametrize("fields", [{}, {"text": "a", "messages": CHAT}])
def test_a_prompt_is_text_or_a_conversation(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="give one of the two"):
        Prompt(**fields)  # type: ignore[arg-type]


def test_plain_text_is_what_the_tokenizer_makes_of_it() -> None:
    assert render(Prompt(text="a b"), tokenizer()) == [6, 7]
    assert render(Prompt(text="a b"), tokenizer(before="[BOS]")) == [3, 6, 7]


def test_an_end_token_that_the_tokenizer_adds_is_taken_off() -> None:
    assert render(Prompt(text="a b"), tokenizer(before="[BOS]", after="[EOS]")) == [3, 6, 7]
    assert render(Prompt(text=""), tokenizer()) == []


def test_a_conversation_goes_up_to_the_header_of_the_answer_with_no_second_bos() -> None:
    assert render(Prompt(messages=CHAT), tokenizer(TEMPLATE, before="[BOS]")) == [4, 6, 7, 2, 5]


def test_a_text_that_begins_with_a_bos_gets_no_second_one() -> None:
    """A conversation written out beforehand, such as "<|begin_of_text|>...", in a plain prompt."""
    for before in ("[BOS]", ""):
        assert render(Prompt(text="[BOS] a b"), tokenizer(before=before)) == [3, 6, 7]
    assert render(Prompt(text="[BOS] a [BOS] b"), tokenizer(before="[BOS]")) == [3, 6, 3, 7]


def test_a_template_s_own_bos_is_the_only_one() -> None:
    for start in ("{{ bos_token }} ", "{{ bos_token }} {{ bos_token }} "):
        ids = render(Prompt(messages=CHAT), tokenizer(start + TEMPLATE, before="[BOS]"))
        assert ids == [3, 4, 6, 7, 2, 5]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "system", "content": "b"}, "of system: no system, please"),
        ({"role": None, "content": "b"}, "of None: .*NoneType"),
        ({"role": 7, "content": "b"}, "of 7: .*int"),
        ({"role": "user"}, "of user: .*content"),
    ],
)
def test_a_template_that_refuses_is_one_line(message: dict[str, object], reason: str) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
        "{{ '[' + m.role + '] ' + m.content.strip() }}{% endfor %}"
    )
    with pytest.raises(UserError, match=f"its chat template refuses messages {reason}") as refused:
        render(Prompt(messages=(message,)), tokenizer(template))
    assert "\n" not in str(refused.value)


def test_a_conversation_needs_a_template() -> None:
    with pytest.raises(UserError, match="no chat template"):
        render(Prompt(messages=CHAT), tokenizer())
