"""What a policy is given for a prompt."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r2m.errors import UserError
from r2m.tasks.prompt import Prompt, prompt_ids

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
    assert prompt_ids(Prompt(text="a b"), tokenizer()) == [6, 7]
    assert prompt_ids(Prompt(text="a b"), tokenizer(before="[BOS]")) == [3, 6, 7]


def test_an_end_token_that_the_tokenizer_adds_is_taken_off() -> None:
    assert prompt_ids(Prompt(text="a b"), tokenizer(before="[BOS]", after="[EOS]")) == [3, 6, 7]
    assert prompt_ids(Prompt(text=""), tokenizer()) == []


def test_a_conversation_goes_up_to_the_header_of_the_answer_with_no_second_bos() -> None:
    assert prompt_ids(Prompt(messages=CHAT), tokenizer(TEMPLATE, before="[BOS]")) == [4, 6, 7, 2, 5]


def test_a_text_that_begins_with_a_bos_gets_no_second_one() -> None:
    """A conversation written out beforehand, such as "<|begin_of_text|>...", in a plain prompt."""
    for before in ("[BOS]", ""):
        assert prompt_ids(Prompt(text="[BOS] a b"), tokenizer(before=before)) == [3, 6, 7]
    assert prompt_ids(Prompt(text="[BOS] a [BOS] b"), tokenizer(before="[BOS]")) == [3, 6, 3, 7]


def test_a_template_s_own_bos_is_the_only_one() -> None:
    for start in ("{{ bos_token }} ", "{{ bos_token }} {{ bos_token }} "):
        ids = prompt_ids(Prompt(messages=CHAT), tokenizer(start + TEMPLATE, before="[BOS]"))
        assert ids == [3, 4, 6, 7, 2, 5]


def test_a_conversation_needs_a_template() -> None:
    with pytest.raises(UserError, match="no chat template"):
        prompt_ids(Prompt(messages=CHAT), tokenizer())


PICKY = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% if m.tool_calls is defined and m.tool_calls | length > 1 %}{{ raise_exception('One call only') }}{% endif %}"
    "[{{ m.role }}] {{ m.content + ' ' }}{% endfor %}"
)
CALLS = {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f"}}] * 2}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (({"role": "system", "content": "a"}, *CHAT), "System role not supported"),
        (CHAT * 2, "Roles must alternate"),
        ((*CHAT, CALLS, *CHAT), "One call only"),
        (({"role": "user", "tool_calls": [1]},), "no attribute 'content'"),  # and no content
    ],
)
def test_what_a_template_refuses_is_named_by_file_and_row(messages: tuple[dict[str, object]], reason: str) -> None:
    prompt = Prompt(messages=messages, origin="task.data = 'x', line 7")
    with pytest.raises(UserError, match=rf"^task.data = 'x', line 7: .*{reason}") as caught:
        prompt_ids(prompt, tokenizer(PICKY))
    assert "\n" not in str(caught.value)


def test_null_keys_of_messages_are_not_there_for_a_template() -> None:
    (message,) = CHAT
    asked = Prompt(messages=(message | {"tool_calls": None},))
    assert prompt_ids(asked, tokenizer(PICKY)) == prompt_ids(Prompt(messages=CHAT), tokenizer(PICKY)) == [4, 6, 7]


def test_tools_and_more_reach_the_template() -> None:
    template = "{% for tool in tools or [] %}{{ tool.name }} {% endfor %}{% if thinking %}[BOS] {% endif %}[user]"
    assert prompt_ids(Prompt(messages=CHAT), tokenizer(template)) == [4]
    given = {"tools": [{"name": "a", "x": None}, {"name": "b"}], "thinking": True}
    assert prompt_ids(Prompt(messages=CHAT, template=given), tokenizer(template)) == [6, 7, 3, 4]


def test_what_a_template_leaves_out_is_said() -> None:
    bare = tokenizer("{% for m in messages %}[{{ m.role }}] {% endfor %}")
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    for prompt, what in (
        (Prompt(messages=CHAT, template={"tools": [{"name": "a"}]}), "tools"),
        (Prompt(messages=(*CHAT, call, *CHAT)), "tool_calls"),
    ):
        with pytest.raises(UserError, match=f"leaves its {what} out"):
            prompt_ids(prompt, bare)
    assert prompt_ids(Prompt(messages=(*CHAT, call | {"content": "", "tool_calls": []}, *CHAT)), bare)


def test_where_a_prompt_is_from_is_not_what_it_is() -> None:
    assert Prompt(text="a", origin="x, line 1") == Prompt(text="a", origin="y, line 2")
