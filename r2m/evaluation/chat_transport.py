"""HTTP for questions: no redirects, a connection soon or not at all, and an answer by a deadline."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import time
import urllib.request
from typing import Any

CONNECT_S = 15.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class _Reached:
    """A connection that is there soon or not at all, however long its answer may take."""

    def connect(self: Any) -> None:
        whole, self.timeout = self.timeout, min(self.timeout, CONNECT_S)
        super().connect()  # type: ignore[misc]
        self.sock.settimeout(whole)


class _Http(_Reached, http.client.HTTPConnection):
    pass


class _Https(_Reached, http.client.HTTPSConnection):
    pass


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Http, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Https, req)


def opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirects, _HttpHandler, _HttpsHandler)


def read_all(response: Any, most: int, deadline: float) -> bytes:
    """All of it, or somewhat more than `most` bytes. Raises TimeoutError, for a slow server too, and OSError."""
    raw = b""
    while len(raw) <= most and (chunk := response.read1(1 << 16)):  # what has arrived
        raw += chunk
        if time.monotonic() > deadline:
            raise TimeoutError
    return raw


def never_sent(reason: object) -> bool:
    """Whether a question has not left, by the reason of a URLError: a timeout there is one of connecting."""
    never = ConnectionRefusedError | TimeoutError | socket.gaierror | ssl.SSLError
    return isinstance(reason, never) or getattr(reason, "errno", None) in (
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    )
