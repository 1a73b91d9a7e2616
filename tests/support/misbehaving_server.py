"""A web server on this machine. A test chooses its answers, which are correct or faulty."""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ETAG = '"v1"'
Answer = Callable[["Handler", bytes], None]


class Site(ThreadingHTTPServer):
    """The server. Each path has its bytes and a list of answers.

    The n-th GET of a path gets the n-th answer, and further ones get the last answer. HEAD gets the
    headers of the answer that the next GET will get.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, tuple[bytes, tuple[Answer, ...]]] = {}
        self.requests: list[tuple[str, str | None]] = []  # path and Range of each GET
        self.release = threading.Event()  # ends stalled answers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, path: str, data: bytes, *answers: Answer) -> str:
        self.pages[path] = (data, answers or (honest,))
        return self.url + path

    def ranges(self, path: str) -> list[str | None]:
        """Returns the Range header of each GET of `path` so far."""
        return [wanted for asked, wanted in self.requests if asked == path]

    def handle_error(self, *_: object) -> None:
        """Ignores errors, because clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        count = len(self.server.ranges(path))
        if self.command == "GET":
            self.server.requests.append((path, self.headers.get("Range")))
        if path not in self.server.pages:
            return self.send_error(404)
        data, answers = self.server.pages[path]
        return answers[min(count, len(answers) - 1)](self, data)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def reply(self, code: int, body: bytes = b"", **headers: str | int) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.release.set()
        site.shutdown()
        site.server_close()
        thread.join()


def part_of(
    handler: Handler, data: bytes, sent: int | None = None, etag: str = ETAG
) -> None:
    """Answers with the whole file, or with the requested rest of it.

    Args:
        sent: number of bytes after which the answer ends too early. Default: it is complete.
    """
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = (
        int(match[1]) if match and handler.headers.get("If-Range", etag) == etag else 0
    )
    headers: dict[str, str | int] = {"Content_Length": len(data) - start, "ETag": etag}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    handler.reply(206 if start else 200, data[start:][:sent], **headers)


def honest(handler: Handler, data: bytes) -> None:
    part_of(handler, data)


def breaks_off(num_bytes: int) -> Answer:
    return lambda handler, data: part_of(handler, data, num_bytes)


def resets(num_bytes: int) -> Answer:
    """Sends the first bytes, then resets the connection."""

    def answer(handler: Handler, data: bytes) -> None:
        part_of(handler, data, num_bytes)
        if handler.command == "GET":
            handler.wfile.flush()
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()

    return answer


def stalls(num_bytes: int) -> Answer:
    """Sends the first bytes, then nothing until `Site.release`."""

    def answer(handler: Handler, data: bytes) -> None:
        part_of(handler, data, num_bytes)
        if handler.command == "GET":
            handler.wfile.flush()
            handler.server.release.wait(300)

    return answer


def with_etag(etag: str) -> Answer:
    return lambda handler, data: part_of(handler, data, etag=etag)


def whole(handler: Handler, data: bytes) -> None:
    """Sends the whole file, even if only a range of it was requested."""
    handler.reply(200, data, Content_Length=len(data), ETag=ETAG)


def unmarked(handler: Handler, data: bytes) -> None:
    """Sends the file without its size, an ETag or a date."""
    handler.reply(200, data)


def page(handler: Handler, _: bytes) -> None:
    body = b"<!DOCTYPE html><html><body>Sorry, this page has moved.</body></html>"
    handler.reply(200, body, Content_Length=len(body), Content_Type="text/html")


def status(code: int) -> Answer:
    return lambda handler, _: handler.reply(code, Content_Length=0)
