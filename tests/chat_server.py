"""A judge behind an OpenAI-compatible endpoint on this machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatJudge(BaseHTTPRequestHandler):
    """Counts what it is asked, and answers as `verdict` says, or refuses as `refusal` does."""

    asked = 0

    @staticmethod
    def verdict(text: str) -> str:
        """The answer to a prompt."""
        raise NotImplementedError

    @staticmethod
    def refusal(body: dict[str, Any]) -> str | None:
        """Why a request is not answered; None: it is."""
        return None

    def do_POST(self) -> None:
        type(self).asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = self.refusal(body)
        said = "" if refused else self.verdict(body["messages"][-1]["content"])
        answer = {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}
        data = json.dumps({"error": {"message": refused}} if refused else answer).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(judge: type[ChatJudge]) -> Iterator[str]:
    """Its address, its count at 0."""
    judge.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), judge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
