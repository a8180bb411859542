"""One question to an OpenAI-compatible /chat/completions endpoint, asked again where that may help.

Asked again: no connection, a connection cut, no whole answer within `timeout_s`, an answer that is not such an
endpoint's, and the statuses 408, 409, 425, 429 and 5xx; after a Retry-After, or a pause that doubles, with jitter. A
Retry-After holds for all threads. Not asked again: 400, 413 and 422, which are about this question. Any other status
is about every question, and a UserError. What the endpoint says of an error goes with it.

The client is openai's, without its retries, and a request holds nothing but what is ours. Redirects are not followed:
they would take the key elsewhere. The key is read from an environment variable and sent in the Authorization header
alone. Besides it, the environment says only which proxy and which certificates are used (HTTPS_PROXY, NO_PROXY,
SSL_CERT_FILE); the variables of openai's own are not read.
"""

import contextlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from r2m.endpoint.chat_format import DEFAULT_BODY, Reply, own_words, read_reply
from r2m.errors import UserError

AGAIN = frozenset({408, 409, 425, 429})
THIS_QUESTION = frozenset({400, 413, 422})
NO_CONNECTION = "no connection"
CONNECT_S = 15.0  # a connection is there soon or not at all, however long an answer may take
LARGEST_ANSWER = 4 << 20  # bytes; of a larger one somewhat more is read
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)

Messages = list[dict[str, str]]


class UnansweredError(Exception):
    """No reply to this question. The message says why, fit for counting; `said`: the endpoint's own words; `again`:
    another attempt may succeed; `billed`: the endpoint may have worked, and may charge."""

    def __init__(self, reason: str, said: str = "", again: bool = False, billed: bool = False) -> None:
        super().__init__(reason)
        self.said, self.again, self.billed = said, again, billed


class StoppedError(Exception):
    """`stop` was set while the question waited."""


@dataclass
class ChatEndpoint:
    """`url` without /chat/completions, such as https://api.openai.com/v1; `body`: what a request has besides."""

    url: str
    model: str
    key_env: str | None = None  # the environment variable that holds the key; None: no key is sent
    timeout_s: float = 300.0  # models that reason take minutes
    tries: int = 5
    backoff_s: float = 1.0  # before the second try; twice as long before each later one
    max_wait_s: float = 120.0  # a longer Retry-After is not waited for
    body: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_BODY))

    def __post_init__(self) -> None:
        """Raises UserError for an address, a model's name or a key that cannot be used."""
        if not self.model.strip():
            raise UserError(f"judge model = {self.model!r}: a name is needed")
        self._key = None if self.key_env is None else _key_in(self.key_env)
        self._client = _client(self.url, self._key, self.timeout_s)
        self._resume_at = 0.0  # no call before, on the monotonic clock

    def __repr__(self) -> str:  # what a traceback shows
        return f"ChatEndpoint({self.url!r}, {self.model!r})"

    def ask(
        self, messages: Messages, stop: threading.Event, account: Callable[[], Callable[[Reply | None, bool], None]]
    ) -> Reply:
        """The reply. `account` is called before each attempt, may raise to forbid it, and returns what is to be told
        the outcome: the reply, or None and whether the endpoint may charge for the attempt all the same.

        Raises UnansweredError, StoppedError, what `account` raises, and UserError where no question would have an
        answer.
        """
        for attempt in range(1, self.tries + 1):
            self._wait_for_turn(stop)
            settle = account()
            try:
                reply = self._attempt(messages)
            except UnansweredError as trouble:
                settle(None, trouble.billed)
                if not trouble.again or attempt == self.tries:
                    raise
            except BaseException:
                settle(None, False)
                raise
            else:
                settle(reply, True)
                return reply
            pause = self.backoff_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
            if time.monotonic() > self._resume_at and stop.wait(pause):
                raise StoppedError
        raise AssertionError("the last attempt has returned or raised")

    def _wait_for_turn(self, stop: threading.Event) -> None:
        while (wait := self._resume_at - time.monotonic()) > 0:
            if wait > self.max_wait_s:
                raise UnansweredError(f"the endpoint asks to wait more than {self.max_wait_s:g} s")
            if stop.wait(wait):
                break
        if stop.is_set():
            raise StoppedError

    def _attempt(self, messages: Messages) -> Reply:
        content = json.dumps({**self.body, "model": self.model, "messages": messages}).encode()
        try:
            raw = self._client.post("/chat/completions", content=content, cast_to=httpx2.Response).content
        except openai.APIStatusError as error:
            raise self._refused(error.response) from None
        except openai.APIConnectionError as error:
            cause, late = error.__cause__, isinstance(error, openai.APITimeoutError)
            if isinstance(cause, NEVER_SENT):
                words = own_words(str(cause).encode(), self._key)
                raise UnansweredError(NO_CONNECTION, words, again=True) from None
            reason = f"no whole answer in {self.timeout_s:g} s" if late else "connection cut"
            raise UnansweredError(reason, again=True, billed=True) from None
        if len(raw) > LARGEST_ANSWER:
            raise UnansweredError("an answer of more than 4 MiB", again=True, billed=True)
        try:
            reply = read_reply(raw)
        except ValueError:
            words = own_words(raw, self._key)
            raise UnansweredError("an answer that is no chat completion", words, again=True, billed=True) from None
        return reply if self._key is None else replace(reply, text=reply.text.replace(self._key, "(the key)"))

    def _refused(self, answer: httpx2.Response) -> Exception:
        code, said = answer.status_code, own_words(answer.content, self._key)
        again = code in AGAIN or code >= 500
        if again and (wait := _retry_after(answer.headers["Retry-After"])) is not None:
            self._resume_at = max(self._resume_at, time.monotonic() + wait)
        if again or code in THIS_QUESTION:
            return UnansweredError(f"status {code}", said, again)
        hint = f"; the key is read from {self.key_env}" if code in (401, 403) and self.key_env else ""
        return UserError(f"judge url = {self.url!r}, model {self.model!r}: status {code}{hint} ({said})")


def _retry_after(value: str) -> float | None:
    """Seconds; the header has whole seconds or a date. None where it has neither."""
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):  # no date, or one without a zone
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None


def _client(url: str, key: str | None, timeout_s: float) -> openai.OpenAI:
    """`timeout_s` is for a whole answer. Raises UserError for an address or an environment that cannot be used."""
    _check_address(url)
    headers = {"Content-Type": "application/json", "User-Agent": "r2m", "Accept-Encoding": "identity"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S))
    limits = httpx2.Limits(max_keepalive_connections=0)  # no question on a connection that was idle
    try:
        client = _OwnRequests(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)
    except (ValueError, ImportError, OSError) as error:
        words = own_words(str(error).encode())
        raise UserError(f"judge url = {url!r}: the environment's proxy or certificates: {words}") from None
    return openai.OpenAI(api_key="unused", base_url=url, max_retries=0, http_client=client)


class _OwnRequests(httpx2.Client):
    """Sends its own headers and none that openai adds, and reads an answer up to a size and a deadline."""

    def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        deadline = time.monotonic() + (self.timeout.read or 0.0)
        ours = httpx2.Request("POST", request.url, headers=self.headers, content=request.content)
        answer = super().send(ours, stream=True)
        raw = bytearray()
        harmless = () if answer.is_success else (httpx2.RequestError,)  # a refusal needs no text
        with contextlib.closing(answer), contextlib.suppress(*harmless):
            for part in answer.iter_raw():  # never unpacked
                raw += part
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("")
                if len(raw) > LARGEST_ANSWER:
                    break
        headers = {"Retry-After": answer.headers.get("Retry-After", "")}
        return httpx2.Response(answer.status_code, headers=headers, content=bytes(raw), request=ours)


def _check_address(url: str) -> None:
    shown = "(with a user or a query)" if "@" in url or "?" in url else url
    try:
        parts = urlsplit(url)
        fine = parts.port != 0 and (parts.hostname or "").encode("idna")
    except ValueError:
        fine = False
    if not fine or shown != url or not re.fullmatch(r"(?i)https?://[!-~]+", url):
        raise UserError(
            f"judge url = {shown!r}: http:// or https://, a host and a path of printable ASCII are allowed"
        )
    if parts.fragment or parts.path.rstrip("/").endswith("/chat/completions"):
        raise UserError(f"judge url = {url!r}: without /chat/completions and #, such as http://HOST/v1")


def _key_in(variable: str) -> str:
    """What the environment variable holds. Raises UserError, which doesn't show it, where that is no key."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[ -~]+", key):
        raise UserError(
            f"judge key_env = {variable!r}: this environment variable must hold the key, in printable ASCII"
        )
    return key
