"""The request's settings, and what an endpoint says of an error."""

import json

import pytest

from r2m.endpoint.chat_format import own_words, request_body, without_reasoning
from r2m.errors import UserError


@pytest.mark.parametrize(
    ("changes", "max_tokens", "body"),
    [
        ([], None, {"temperature": 0, "max_tokens": 256}),
        ([], 4096, {"temperature": 0, "max_tokens": 4096}),
        (["temperature=0.5", "top_p=1"], None, {"temperature": 0.5, "max_tokens": 256, "top_p": 1}),
        (
            ["temperature=null", "max_tokens=null", "max_completion_tokens=4096", 'reasoning_effort="low"'],
            None,
            {"max_completion_tokens": 4096, "reasoning_effort": "low"},
        ),
        (["max_completion_tokens=4096"], None, {"temperature": 0, "max_completion_tokens": 4096}),
        (
            ["max_completion_tokens=9", "max_tokens=8"],
            None,
            {"temperature": 0, "max_completion_tokens": 9, "max_tokens": 8},
        ),
        (
            ['chat_template_kwargs={"enable_thinking": false}', "seed=null"],
            None,
            {"temperature": 0, "max_tokens": 256, "chat_template_kwargs": {"enable_thinking": False}},
        ),
    ],
)
def test_a_body_is_the_default_one_changed(changes, max_tokens, body):
    assert request_body(changes, max_tokens) == body


@pytest.mark.parametrize(
    ("changes", "max_tokens", "message"),
    [
        (["temperature"], None, "--judge-body 'temperature': KEY=JSON is needed"),
        (["=1"], None, "--judge-body '=1': KEY=JSON is needed"),
        (["a b=1"], None, "--judge-body 'a b=1': KEY=JSON is needed"),
        (["reasoning_effort=low"], None, "'low' is not JSON; text is quoted: reasoning_effort='\"low\"'"),
        (['stop=["a"'], None, "'[\"a\"' is not JSON"),
        (["temperature="], None, "--judge-body 'temperature=': '' is not JSON"),
        (["temperature=NaN"], None, "'NaN' is not JSON"),
        (["temperature=1e999"], None, "'1e999' is not JSON"),
        (["a=" + "[" * 100_000], None, "is not JSON"),
        (["seed=" + "9" * 5000], None, "is not JSON"),
        (['model="x"'], None, "--judge-body model: all but messages, model, stream, n may be set"),
        (['api_key="sk-1"'], None, "--judge-body api_key: would be kept with the verdicts; --key-env is"),
        (["n=2"], None, "--judge-body n: all but"),
        (["stream=true"], None, "--judge-body stream: all but"),
        (["messages=[]"], None, "--judge-body messages: all but"),
        (["seed=1", "seed=2"], None, "--judge-body seed: is there twice"),
        (["max_tokens=0"], None, "judge max_tokens = 0: a whole number from 1 on is allowed"),
        (['max_completion_tokens="9"'], None, "judge max_completion_tokens = 9: a whole number"),
        (["max_tokens=true"], None, "judge max_tokens = True: a whole number"),
        (["max_tokens=" + "9" * 400], None, "a whole number from 1 on is allowed"),
        (["max_tokens=null"], 9, "--judge-max-tokens 9: --judge-body max_tokens says the limit as well"),
        (["max_completion_tokens=9"], 9, "--judge-body max_completion_tokens says the limit as well"),
    ],
)
def test_a_change_that_is_none_is_one_line(changes, max_tokens, message):
    with pytest.raises(UserError) as caught:
        request_body(changes, max_tokens)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"error": {"message": "Use max_completion_tokens.", "type": "x"}}', "Use max_completion_tokens."),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"object": "error", "message": "max_tokens is too large"}', "max_tokens is too large"),
        (b'{"detail": [{"msg": "wrong"}]}', '{"detail": [{"msg": "wrong"}]}'),
        (b"<html>\n  <b>Bad</b>\r\n</html>", "<html> <b>Bad</b> </html>"),
        (b"", ""),
        (b"\xff\x00\x1b[31m", "�\\x00\\x1b[31m"),
        ("\u202edlrow".encode(), "\\u202edlrow"),
        (b"[" * 100_000, "[" * 199 + "…"),
        (b'{"error": "the key s\\"k-1 is wrong"}', "the key (the key) is wrong"),
        (b'{"detail": {"key": "s\\"k-1"}}', '{"detail": {"key": "(the key)"}}'),
    ],
)
def test_an_endpoints_own_words_are_one_short_line_without_the_key(raw, words):
    assert own_words(raw, 's"k-1') == words


def test_a_reply_without_its_reasoning():
    assert without_reasoning("<think>a</think>b</think>c") == "c"
    assert without_reasoning("<Thinking>a") == ""
    assert without_reasoning("a <think> b") == "a <think> b"  # spoken of
    assert without_reasoning(json.dumps("a")) == '"a"'
