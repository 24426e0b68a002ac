"""An OpenAI-compatible endpoint of a few lines, for tests: in a thread, or as a program of its own.

Texts are made of the seed, so that what was asked for can be told from what came back.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeEndpoint(ThreadingHTTPServer):
    """Counts what it is asked; how it misbehaves is set by the test."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.model = "served"
        self.owner = "somebody"
        self.takes_n = True
        self.failures: list[int] = []
        """Status codes of the next answers, before it answers well."""
        self.key = ""
        self.asked: list[dict[str, object]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeEndpoint

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._reply(200, {})
        else:
            listed = {"id": self.server.model, "owned_by": self.server.owner}
            self._reply(200, {"data": [listed]})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            failure = server.failures.pop(0) if server.failures else 0
            if not failure:
                server.asked.append(body)
        time.sleep(0.01)
        with server.lock:
            server.at_once -= 1
        if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
            self._reply(401, {"error": {"message": "who are you?"}})
        elif failure:
            self._reply(failure, {"error": {"message": "not now"}})
        else:
            count = body["n"] if server.takes_n else 1
            choices = [_choice(body, i) for i in range(count)]
            self._reply(200, {"choices": choices[::-1]})

    def _reply(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _choice(body: dict[str, object], index: int) -> dict[str, object]:
    seed = int(str(body["seed"])) + index
    choice: dict[str, object] = {
        "index": index,
        "text": f"try {seed % 9}",
        "finish_reason": "length" if seed % 2 else "stop",
    }
    if "logprobs" in body:
        choice["logprobs"] = {"token_logprobs": [-0.5, -0.25, -1.0][: 2 + (seed + 1) % 2]}
    return choice


@contextmanager
def fake_endpoint() -> Iterator[FakeEndpoint]:
    """An endpoint in a thread, while the block runs."""
    server = FakeEndpoint()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Stand in for ``python -m vllm.entrypoints.openai.api_server``."""
    words = sys.argv[1:]
    server = FakeEndpoint(int(words[words.index("--port") + 1]))
    server.model = words[words.index("--served-model-name") + 1]
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
