"""A judge behind an OpenAI-compatible endpoint on this machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatJudge(BaseHTTPRequestHandler):
    """Counts what it is asked, and answers as `verdict` says."""

    asked = 0

    @staticmethod
    def verdict(text: str) -> str:
        """The answer to a prompt."""
        raise NotImplementedError

    def do_POST(self) -> None:
        type(self).asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = self.verdict(body["messages"][-1]["content"])
        data = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(200)
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
