"""What a reward model reads: the whole conversation by its own template, however the policy ended."""

from itertools import product

import pytest
import torch
from made_tokenizers import CHATML, TEMPLATES, chat_tokenizer, sentencepiece_tokenizer
from transformers import PreTrainedTokenizerFast

from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.policy.queries import Query, response_texts
from r2m.reward.inputs import RewardInput, response_ids
from r2m.tasks.answer import answer_ids
from r2m.tasks.prompt import Prompt, prompt_ids

TURNS = (
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "What is 2+2?"},
)
CHAT, ASKED = Prompt(messages=TURNS), Prompt(messages=TURNS[-1:])
ANSWERS = ["It is 4.", "4", "mom sold\n\ntv", "spaceless"]


def whole(tokenizer: PreTrainedTokenizerFast, prompt: Prompt, answer: str) -> list[int]:
    messages = [*(prompt.messages or ()), {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(messages, return_dict=False)


def end_tokens(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Tokens by which a policy may end: the tokenizer's, and any that the template names."""
    return [tokenizer.eos_token_id, *(i for i in tokenizer.added_tokens_decoder if i > 258)]


@pytest.mark.parametrize("family", TEMPLATES)
def test_training_and_scoring_read_the_whole_conversation_however_it_ended(family: str) -> None:
    tokenizer = chat_tokenizer(TEMPLATES[family])
    scorer = RewardInput(tokenizer, tokenizer)
    for prompt, answer in product((CHAT, ASKED), ANSWERS):
        expected = whole(tokenizer, prompt, answer)
        assert response_ids(tokenizer, prompt, answer) == expected
        assert expected[1:2] != [tokenizer.bos_token_id]
        # As the template has it written, and with nothing but the answer behind the header.
        for body in (answer_ids(tokenizer, prompt, answer), tokenizer(answer)["input_ids"]):
            ended = [[*body, end] for end in end_tokens(tokenizer)]
            assert list(scorer.ids(prompt, ended, [True] * len(ended))) == [expected] * len(ended)


@pytest.mark.parametrize("family", TEMPLATES)
def test_text_for_another_tokenizer_is_the_same_conversation(family: str) -> None:
    tokenizer, other = chat_tokenizer(TEMPLATES[family]), sentencepiece_tokenizer("never", CHATML)
    for policy, reward in ((tokenizer, other), (other, tokenizer)):
        scorer = RewardInput(reward, policy)
        for answer in ANSWERS:
            ended = [[*answer_ids(policy, CHAT, answer), end] for end in end_tokens(policy)]
            expected = whole(reward, CHAT, answer)
            assert list(scorer.ids(CHAT, ended, [True] * len(ended))) == [expected] * len(ended)


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_response_without_an_end_is_read_without_one(family: str) -> None:
    tokenizer = chat_tokenizer(TEMPLATES[family])
    text = tokenizer.apply_chat_template([*TURNS, {"role": "assistant", "content": "It is"}], tokenize=False)
    cut = tokenizer(text[: text.rindex("It is") + len("It is")], add_special_tokens=False)["input_ids"]
    body = answer_ids(tokenizer, CHAT, "It is")
    assert list(RewardInput(tokenizer, tokenizer).ids(CHAT, [body], [False])) == [cut]


def test_the_policy_s_ids_are_passed_on_as_they_are() -> None:
    """Spelled as no tokenizer would spell them, and with a stray special token."""
    tokenizer = sentencepiece_tokenizer("never", CHATML)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    m, o, start, end = tokenizer.convert_tokens_to_ids(["m", "o", "<|im_start|>", "<|im_end|>"])
    (ids,) = RewardInput(tokenizer, tokenizer).ids(ASKED, [[m, o, m, start, m, end]], [True])
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert ids == [*prompt_ids(ASKED, tokenizer), m, o, m, start, m, end, *newline]


def test_ids_pass_to_a_template_of_another_kind_and_a_larger_vocabulary() -> None:
    """A reward model's tokenizer may have a padding token more, and conversations of its own form."""
    policy, reward = sentencepiece_tokenizer("never", CHATML), sentencepiece_tokenizer("never")
    reward.add_special_tokens({"pad_token": "[PAD]"})
    reward.chat_template = TEMPLATES["zephyr"]
    m, o = policy.convert_tokens_to_ids(["m", "o"])
    (ids,) = RewardInput(reward, policy).ids(ASKED, [[m, o, m, policy.eos_token_id]], [True])
    newline = reward("\n", add_special_tokens=False)["input_ids"]
    assert ids == [*prompt_ids(ASKED, reward), m, o, m, reward.eos_token_id, *newline]
    # Behind "[/INST]" a template puts a space, which is one token with the word that follows.
    reward.chat_template = TEMPLATES["mistral"]
    (ids,) = RewardInput(reward, policy).ids(ASKED, [[*answer_ids(policy, ASKED, "mom"), 2]], [True])
    assert ids == whole(reward, ASKED, "mom")
    assert ids[-2:] == [*reward.convert_tokens_to_ids(["▁mom"]), reward.eos_token_id]


@pytest.mark.parametrize("style", ["legacy", "always", "first"])
@pytest.mark.parametrize("family", ["llama2", "mistral", "zephyr"])
def test_a_first_word_without_its_space_stays_without(style: str, family: str) -> None:
    """Two first tokens, two inputs; the one that the template writes itself is the whole conversation's."""
    tokenizer = sentencepiece_tokenizer(style, TEMPLATES[family])
    scorer = RewardInput(tokenizer, tokenizer)
    spaced, bare, end = tokenizer.convert_tokens_to_ids(["▁mom", "mom", "</s>"])
    usual, unusual = scorer.ids(ASKED, [[spaced, end], [bare, end]], [True, True])
    if family == "zephyr":  # its header ends in a newline, and the usual first word has no space
        usual, unusual = unusual, usual
    assert usual == whole(tokenizer, ASKED, "mom")
    assert unusual != usual
    assert (bare in unusual, spaced in unusual) == (family != "zephyr", family == "zephyr")


@pytest.mark.parametrize("style", ["legacy", "always", "first", "never"])
def test_another_tokenizer_reads_the_space_of_a_plain_response(style: str) -> None:
    policy, reward = sentencepiece_tokenizer(style), chat_tokenizer(None)
    prompt = Prompt(text="TL;DR:")
    spaced, bare, end = policy.convert_tokens_to_ids(["▁mom", "mom", "</s>"])
    read = RewardInput(reward, policy).ids(prompt, [[spaced, end], [bare, end]], [True, True])
    assert [reward.decode(ids) for ids in read] == ["TL;DR: mom<eos>", "TL;DR:mom<eos>"]
    back = RewardInput(policy, reward)
    texts = [[*reward(text)["input_ids"], reward.eos_token_id] for text in (" mom", "mom")]
    asked = prompt_ids(prompt, policy)
    assert list(back.ids(prompt, texts, [True, True])) == [[*asked, spaced, end], [*asked, bare, end]]


def test_plain_text_ends_in_the_reward_model_s_one_end_token() -> None:
    tokenizer, prompt = chat_tokenizer(CHATML), Prompt(text="TL;DR:")
    body = tokenizer(" mom")["input_ids"]
    expected = [*tokenizer("TL;DR: mom")["input_ids"], tokenizer.eos_token_id]
    ended = [[*body, end] for end in end_tokens(tokenizer)]
    read = list(RewardInput(tokenizer, tokenizer).ids(prompt, [*ended, body], [*[True] * 3, False]))
    assert read == [expected] * 3 + [expected[:-1]]
    assert response_ids(tokenizer, prompt, " mom") == expected


def test_a_thought_that_the_header_has_opened() -> None:
    """The answer is what follows it; a response that does not close it is the answer whole."""
    tokenizer = chat_tokenizer(TEMPLATES["deepseek-r1"])
    scorer, other = RewardInput(tokenizer, tokenizer), chat_tokenizer(CHATML)
    body = [*tokenizer("two and two\n</think>\n\nIt is 4.")["input_ids"], tokenizer.eos_token_id]
    (ids,) = scorer.ids(ASKED, [body], [True])
    assert tokenizer.decode(ids).endswith("2+2?<|Assistant|>\n\nIt is 4.<eos>")
    (ids,) = RewardInput(other, tokenizer).ids(ASKED, [body], [True])
    assert ids == whole(other, ASKED, "<think>\ntwo and two\n</think>\n\nIt is 4.")


def test_a_thinking_block_as_written_is_the_template_s() -> None:
    tokenizer = chat_tokenizer(TEMPLATES["qwen3"])
    scorer = RewardInput(tokenizer, tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for thought, answer in (("\n", "4"), ("so\n", "4")):
        text = f"<think>\n{thought}</think>\n\n{answer}"
        body = tokenizer(text)["input_ids"]
        (ids,) = scorer.ids(ASKED, [[*body, end]], [True])
        assert ids == [*prompt_ids(ASKED, tokenizer), *body, end, *tokenizer("\n")["input_ids"]]


def test_what_a_template_trims_is_not_read() -> None:
    tokenizer = chat_tokenizer(TEMPLATES["llama3"])
    body = [*tokenizer(" 4 \n")["input_ids"], tokenizer.eos_token_id]
    (ids,) = RewardInput(tokenizer, tokenizer).ids(ASKED, [body], [True])
    assert ids == whole(tokenizer, ASKED, "4") == response_ids(tokenizer, ASKED, " 4 \n")


def test_a_template_that_shows_no_answer_is_refused() -> None:
    tokenizer = chat_tokenizer("{{ messages[0].content }}")
    with pytest.raises(UserError, match="its chat template does not show the text of an assistant's answer"):
        list(RewardInput(tokenizer, tokenizer).ids(ASKED, [[1, 2]], [True]))
    other = chat_tokenizer(CHATML)  # to ask by it is enough for a policy
    assert answer_ids(tokenizer, ASKED, "4") == tokenizer("4")["input_ids"]
    (ids,) = RewardInput(other, tokenizer).ids(ASKED, [[*tokenizer("4")["input_ids"], 256]], [True])
    assert ids == whole(other, ASKED, "4")


def test_texts_are_the_answers_alone() -> None:
    """As gold, judges and people read them: without the template's own text, spaces of plain responses kept."""
    plain, chat = Prompt(text="TL;DR:"), ASKED
    tokenizer = sentencepiece_tokenizer("legacy", TEMPLATES["mistral"])
    spaced, bare, end = tokenizer.convert_tokens_to_ids(["▁mom", "mom", "</s>"])
    queries = [Query(prompt, prompt_ids(prompt, tokenizer)) for prompt in (plain, chat)]
    ids = torch.tensor([[[spaced, end], [bare, spaced]]] * 2)
    t = Trajectories(
        torch.ones(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool), ids, torch.ones_like(ids).bool(),
        torch.zeros(ids.shape), torch.tensor([[True, False]] * 2),
    )  # fmt: skip
    assert response_texts(tokenizer, queries, t) == [" mom", "mom mom", "mom", "mom mom"]


def test_an_end_token_that_is_not_special_is_not_in_the_text() -> None:
    tokenizer = chat_tokenizer(None)
    end = tokenizer("!")["input_ids"]
    prompt = Prompt(text="TL;DR:")
    body = tokenizer(" mom")["input_ids"]
    ids = torch.tensor([[body + end]])
    t = Trajectories(
        torch.ones(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool), ids, torch.ones_like(ids).bool(),
        torch.zeros(ids.shape), torch.tensor([[True]]),
    )  # fmt: skip
    assert response_texts(tokenizer, [Query(prompt, [])], t) == [" mom"]
    (read,) = RewardInput(tokenizer, tokenizer).ids(prompt, [body + end], [True])
    assert read == [*tokenizer("TL;DR: mom")["input_ids"], tokenizer.eos_token_id]
