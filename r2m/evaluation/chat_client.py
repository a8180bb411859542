"""The openai client for one endpoint: without retries or redirects, and with nothing in a request but what is ours.

The key is read from an environment variable, sent in the Authorization header, and nowhere else. Of the environment,
proxies and certificates act besides (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE), and nothing that openai reads there.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from r2m.errors import UserError
from r2m.evaluation.chat_format import own_words

CONNECT_S = 15.0  # a connection is there soon or not at all, however long an answer may take
LARGEST_ANSWER = 4 << 20  # bytes; of a larger one somewhat more is read


def chat_client(url: str, key: str | None, timeout_s: float) -> openai.OpenAI:
    """`timeout_s` is for a whole answer. Raises UserError for an address or an environment that cannot be used."""
    _check_address(url)
    headers = {"Content-Type": "application/json", "User-Agent": "r2m", "Accept-Encoding": "identity"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S))
    limits = httpx2.Limits(max_keepalive_connections=0)  # no question on a connection that was idle
    try:
        client = _Client(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)
    except (ValueError, ImportError, OSError) as error:
        words = own_words(str(error).encode())
        raise UserError(f"judge url = {url!r}: the environment's proxy or certificates: {words}") from None
    return openai.OpenAI(api_key="unused", base_url=url, max_retries=0, http_client=client)


class _Client(httpx2.Client):
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


def key_in(variable: str) -> str:
    """What the environment variable holds. Raises UserError, which doesn't show it, where that is no key."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[ -~]+", key):
        raise UserError(
            f"judge key_env = {variable!r}: this environment variable must hold the key, in printable ASCII"
        )
    return key
