"""What a request to /chat/completions has besides its question, and what the endpoint's answer says.

A reply counts only where it is whole. One that the limit on tokens has cut off, an empty one, and one that ends in
its reasoning is lacking, and says why. The content may be text, text in parts, or missing beside the reasoning; what
stands before `</think>` is reasoning, too.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2m.errors import UserError, one_line

DEFAULT_BODY: Mapping[str, Any] = {"temperature": 0, "max_tokens": 256}
LIMITS = ("max_completion_tokens", "max_tokens")  # the names that a limit on a reply's tokens has
OURS = ("messages", "model", "stream", "n")
LARGEST = (1 << 31) - 1  # of a count of tokens

CUT_OFF = "cut off"
_CUT = frozenset({"length", "max_tokens", "model_length"})  # OpenAI's word, Anthropic's, Mistral's
_REASONING = re.compile(r".*(?:</think(?:ing)?>|\[/THINK\])", re.DOTALL | re.IGNORECASE)
_SECRET = re.compile(r"api_?key|secret|password|authorization|access_token", re.IGNORECASE)
_STILL_REASONING = re.compile(r"\s*(?:<think(?:ing)?>|\[THINK\])", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    text: str
    tokens_in: int | None  # as the endpoint counts them, None where it doesn't say
    tokens_out: int | None
    lacking: str | None = None  # why this is no whole answer, in a few words


def request_body(changes: Sequence[str] = (), max_tokens: int | None = None) -> dict[str, Any]:
    """The settings of a request: DEFAULT_BODY, changed. Each of `changes` is KEY=JSON; null takes the key out, and a
    limit on tokens takes the place of the default one.

    Raises UserError for a change in another form, a key that is set here or named twice, and a limit on tokens that
    is not a positive whole number.
    """
    given: dict[str, Any] = {}
    for change in changes:
        key, value = _change(change)
        if key in given:
            raise UserError(f"--judge-body {key}: is there twice")
        given[key] = value
    named = [key for key in LIMITS if key in given]
    if max_tokens is not None:
        if named:
            raise UserError(f"--judge-max-tokens {max_tokens}: --judge-body {named[0]} says the limit as well")
        given["max_tokens"] = max_tokens
    for key in LIMITS:
        limit = given.get(key)
        if limit is not None and not (type(limit) is int and 1 <= limit <= LARGEST):
            raise UserError(f"judge {key} = {str(limit)[:60]}: a whole number from 1 on is allowed")
    body = {**DEFAULT_BODY, **given}
    if given.get("max_completion_tokens") is not None and "max_tokens" not in given:
        del body["max_tokens"]
    return {key: value for key, value in body.items() if value is not None}


def _change(change: str) -> tuple[str, Any]:
    key, equals, text = change.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII):
        raise UserError(f"--judge-body {change[:60]!r}: KEY=JSON is needed, such as temperature=null")
    if key in OURS:
        raise UserError(f"--judge-body {key}: all but {', '.join(OURS)} may be set")
    if _SECRET.search(key):
        raise UserError(f"--judge-body {key}: would be kept with the verdicts; --key-env is for secrets")
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        quoted = f"; text is quoted: {key}='\"{text}\"'" if re.fullmatch(r"[A-Za-z][\w.-]{,30}", text) else ""
        raise UserError(f"--judge-body {change[:60]!r}: {text[:40]!r} is not JSON{quoted}") from None
    return key, value


def read_reply(raw: bytes) -> Reply:
    """Raises ValueError for what is no chat completion."""
    try:
        answer = json.loads(raw)
        choice = answer["choices"][0]
        message = choice["message"]
        content = _text(message.get("content"))
    except (LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("no chat completion") from None
    text = content or (refusal if isinstance(refusal := message.get("refusal"), str) else "")
    counts = usage if isinstance(usage := answer.get("usage"), dict) else {}
    tokens_in, tokens_out = (
        n if type(n := counts.get(name)) is int and 0 <= n <= LARGEST else None
        for name in ("prompt_tokens", "completion_tokens")
    )
    lacking, finish = None, str(choice.get("finish_reason")).lower()
    if finish in _CUT:
        lacking = CUT_OFF
    elif finish == "content_filter":
        lacking = "stopped by the endpoint's filter"
    elif not without_reasoning(text).strip():
        reasoning = text.strip() or message.get("reasoning_content") or message.get("reasoning")
        lacking = "no answer after its reasoning" if reasoning else "an empty answer"
    return Reply(text, tokens_in, tokens_out, lacking)


def _text(content: Any) -> str:
    """The text of a reply's content: text itself, the texts of its parts, or "" for None; else raises TypeError."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise TypeError
    texts = (part.get("text") for part in content if part.get("type", "text") in ("text", "output_text"))
    return "".join(text for text in texts if isinstance(text, str))


def without_reasoning(text: str) -> str:
    """What follows the reasoning; nothing where that does not end."""
    if ended := _REASONING.match(text):
        return text[ended.end() :]
    return "" if _STILL_REASONING.match(text) else text


def own_words(raw: bytes, secret: str | None = None, length: int = 200) -> str:
    """What an endpoint says of an error: one short printable line, without the secret; "" where it says nothing."""
    said = raw.decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(said)
        for key in ("error", "message"):
            found = found.get(key, found) if isinstance(found, dict) else found
        said = found if isinstance(found, str) else said
    if secret is not None:
        for form in (secret, json.dumps(secret)[1:-1]):
            said = said.replace(form, "(the key)")
    line = one_line(said)
    return line if len(line) <= length else line[: length - 1] + "…"
