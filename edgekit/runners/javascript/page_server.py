"""A server on the loopback for one page: it sends a fixed set of files and takes back a fixed set."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_HEADERS = {
    # These two isolate the page, without which a browser gives it no shared memory, so no threads.
    # Source: HTML Standard, cross-origin opener policy and cross-origin embedder policy.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; worker-src 'self'; "
    "script-src 'self' 'wasm-unsafe-eval'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_BEAT_S = 0.2
_LARGEST_UPLOAD_BYTES = 4 << 30


class PageServer(ThreadingHTTPServer):
    """What a page of one run may read and write.

    Its addresses begin with a secret word, so no other program of this machine can take the page's place.

    Attributes:
        sends: Path in the address -> file.
        takes: Path in the address -> file to write.
        names: What `names` answers.
        peak_memory: What `memory` answers.
        ended: Set when there is a result, a failure, or no page any more.
        failure: What the page said when it failed.
        lost: True when the page was there and went away without a word.
        workers: Workers that the page has started.
    """

    daemon_threads = True

    def __init__(
        self,
        sends: Mapping[str, Path],
        takes: Mapping[str, Path],
        names: list[str],
        peak_memory: Callable[[], int | None],
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sends, self.takes, self.names, self.peak_memory = sends, takes, names, peak_memory
        self.prefix = f"/{secrets.token_urlsafe(16)}/"
        self.ended = threading.Event()
        self.failure = ""
        self.lost = False
        self.workers = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where the browser was killed in the middle of a request: the runner tells."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def host(self) -> str:
        """Name and port, as browsers say it."""
        return f"127.0.0.1:{self.server_port}"

    def address(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://{self.host}{self.prefix}{path}"


@contextmanager
def serving(server: PageServer) -> Iterator[PageServer]:
    """Answer requests while the block runs."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return self._answer(404)
        if path == "alive":
            return self._stay()
        if path == "names":
            return self._answer(200, json.dumps(self.server.names).encode())
        if path == "memory":
            return self._answer(200, json.dumps(self.server.peak_memory()).encode())
        file = self.server.sends.get(path)
        if file is None:
            return self._answer(404)
        if self.headers.get("Sec-Fetch-Dest") == "worker":
            self.server.workers += 1
        self._answer(200, file.read_bytes(), _TYPES.get(file.suffix, "application/octet-stream"))

    def do_POST(self) -> None:
        path = self._path()
        length = self.headers.get("Content-Length", "")
        known = path == "failure" or path in self.server.takes
        if not known or not length.isdecimal() or int(length) > _LARGEST_UPLOAD_BYTES:
            self.close_connection = True  # the body stays unread
            return self._answer(404)
        assert path is not None
        body = self.rfile.read(int(length))
        if path == "failure":
            self.server.failure = body.decode(errors="replace") or "it failed without a word"
        else:
            self.server.takes[path].write_bytes(body)
        self._answer(200)
        if path in ("failure", "job/result.json"):
            self.server.ended.set()

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""

    def _path(self) -> str | None:
        """Return the path behind the secret word; None where the word, or the host's name, is another."""
        if self.headers.get("Host") != self.server.host or not self.path.startswith(self.server.prefix):
            return None
        return self.path.removeprefix(self.server.prefix)

    def _answer(self, status: int, body: bytes = b"", kind: str = "application/json") -> None:
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stay(self) -> None:
        """Send a byte now and then, until the run has ended or nobody takes them."""
        self.close_connection = True
        self._head(200, {"Content-Type": "text/plain", "Connection": "close"})
        while not self.server.ended.wait(_BEAT_S):
            try:
                self.wfile.write(b".")
            except OSError:
                self.server.lost = True
                self.server.ended.set()
        with suppress(OSError):
            self.wfile.flush()
