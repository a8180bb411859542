"""One question to an OpenAI-compatible /chat/completions endpoint, asked again where that may help.

Asked again: no connection, a connection cut, no whole answer within `timeout_s`, an answer that is not such an
endpoint's, and the statuses 408, 409, 425, 429 and 5xx; after a Retry-After, or a pause that doubles, with jitter.
A Retry-After holds for all threads. Not asked again: 400, 413 and 422, which are about this question. Any other
status is about every question, and a UserError. Redirects are not followed: they would take the key elsewhere.
What the endpoint says of an error goes with it.

The key is read from an environment variable, sent in the Authorization header, and nowhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from r2m.errors import UserError
from r2m.evaluation.chat_format import DEFAULT_BODY, Reply, own_words, read_reply
from r2m.evaluation.chat_transport import never_sent, opener, read_all

LARGEST_ANSWER = 4 << 20  # bytes
LARGEST_REFUSAL = 1 << 16  # of which are read, at least
AGAIN = frozenset({408, 409, 425, 429})
THIS_QUESTION = frozenset({400, 413, 422})
NO_CONNECTION = "no connection"

Messages = list[dict[str, str]]


class UnansweredError(Exception):
    """No reply to this question. The message says why, fit for counting; `said`: the endpoint's own words."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(reason)
        self.said = said


class StoppedError(Exception):
    """`stop` was set while the question waited."""


class _TroubleError(Exception):
    """An attempt failed, and another one may succeed. `billed`: the endpoint may have worked and may charge."""

    def __init__(self, reason: str, billed: bool, said: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.billed, self.said, self.retry_after_s = billed, said, retry_after_s


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
        _check_address(self.url)
        if not self.model.strip():
            raise UserError(f"judge model = {self.model!r}: a name is needed")
        for name in ("timeout_s", "tries", "backoff_s"):
            if getattr(self, name) <= 0:
                raise UserError(f"judge {name} = {getattr(self, name)}: must be above 0")
        self._key = None if self.key_env is None else _key(self.key_env)
        self._opener = opener()
        self._resume_at = 0.0  # no call before, on the monotonic clock

    def __repr__(self) -> str:  # what a traceback shows
        return f"ChatEndpoint({self.url!r}, {self.model!r})"

    def ask(
        self,
        messages: Messages,
        stop: threading.Event,
        account: Callable[[], Callable[[Reply | None, bool], None]],
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
            except _TroubleError as trouble:
                settle(None, trouble.billed)
                pause = self.backoff_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
                if trouble.retry_after_s is not None:
                    self._resume_at = max(self._resume_at, time.monotonic() + trouble.retry_after_s)
                elif attempt < self.tries and stop.wait(pause):
                    raise StoppedError from None
                last = UnansweredError(str(trouble), trouble.said)
            except BaseException:
                settle(None, False)
                raise
            else:
                settle(reply, True)
                return reply
        raise last

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
        headers = {"Content-Type": "application/json", "User-Agent": "r2m"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", content, headers)
        deadline = time.monotonic() + self.timeout_s
        try:
            with self._opener.open(request, timeout=self.timeout_s) as response:
                raw = read_all(response, LARGEST_ANSWER, deadline)
                if len(raw) > LARGEST_ANSWER:
                    raise _TroubleError("an answer of more than 4 MiB", billed=True)
        except urllib.error.HTTPError as error:
            raise self._status(error, deadline) from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError):
                raise _TroubleError(f"no whole answer in {self.timeout_s:g} s", billed=True) from None
            if isinstance(error, urllib.error.URLError) and never_sent(error.reason):
                words = own_words(str(error.reason).encode(), self._key)
                raise _TroubleError(NO_CONNECTION, False, words) from None
            raise _TroubleError("connection cut", billed=True) from None
        try:
            reply = read_reply(raw)
        except ValueError:
            raise _TroubleError(
                "an answer that is no chat completion", True, own_words(raw, self._key)
            ) from None
        return reply if self._key is None else replace(reply, text=reply.text.replace(self._key, "(the key)"))

    def _status(self, error: urllib.error.HTTPError, deadline: float) -> Exception:
        said = ""
        with contextlib.suppress(OSError, http.client.HTTPException):
            said = own_words(read_all(error, LARGEST_REFUSAL, deadline), self._key)
        status = f"status {error.code}"
        if error.code in AGAIN or error.code >= 500:
            return _TroubleError(status, False, said, _retry_after(error.headers.get("Retry-After")))
        if error.code in THIS_QUESTION:
            return UnansweredError(status, said)
        hint = f"; the key is read from {self.key_env}" if error.code in (401, 403) and self.key_env else ""
        return UserError(f"judge url = {self.url!r}, model {self.model!r}: {status}{hint} ({said})")


def _check_address(url: str) -> None:
    shown = "(with a user or a query)" if "@" in url or "?" in url else url
    try:
        parts = urlsplit(url)
        _ = parts.port
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("printable ASCII without spaces is allowed")
        (parts.hostname or "").encode("idna")
    except ValueError as error:  # UnicodeError is one
        reason = "no address" if shown != url else " ".join(str(error).split())
        raise UserError(f"judge url = {shown!r}: {reason}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or shown != url:
        raise UserError(f"judge url = {shown!r}: http:// or https://, a host and a path are allowed")
    if parts.fragment or parts.path.rstrip("/").endswith("/chat/completions"):
        raise UserError(f"judge url = {url!r}: without /chat/completions and #, such as http://HOST/v1")


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"judge key_env = {variable!r}: this environment variable must hold the key, and is empty"
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"judge key_env = {variable!r}: its value has characters that no HTTP header may have"
        )
    return key


def _retry_after(value: str | None) -> float | None:
    """Seconds; the header has whole seconds or a date. None where it has neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):  # no date, or one without a zone
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None
