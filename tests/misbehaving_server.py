"""A web server on this machine whose answers are written by the test: honest, or wrong in one way at a time."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ETAG = '"v1"'
DATE = "Mon, 05 Feb 2024 10:00:00 GMT"
Answer = Callable[["Handler", bytes], None]


class Site(ThreadingHTTPServer):
    """Paths with their bytes and answers; the n-th request to a path gets the n-th answer, later ones the last."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, tuple[bytes, tuple[Answer, ...]]] = {}
        self.requests: list[tuple[str, str | None]] = []  # path and Range
        self.release = threading.Event()  # lets stalled answers end

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, path: str, data: bytes, *answers: Answer) -> str:
        self.pages[path] = (data, answers or (honest,))
        return self.url + path

    def ranges(self, path: str) -> list[str | None]:
        """The Range of each request to `path` so far."""
        return [wanted for asked, wanted in self.requests if asked == path]

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        count = len(self.server.ranges(path))
        self.server.requests.append((path, self.headers.get("Range")))
        if path not in self.server.pages:
            return self.send_error(404)
        data, answers = self.server.pages[path]
        return answers[min(count, len(answers) - 1)](self, data)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def reply(self, code: int, body: bytes = b"", **headers: str | int) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def offset(self, mark: str = ETAG) -> int:
        """Where the wanted rest begins; 0 when the whole file must be sent."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match and self.headers.get("If-Range") == mark else 0


@contextmanager
def running_site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.release.set()
        site.shutdown()
        site.server_close()
        thread.join()


def part_of(handler: Handler, data: bytes, sent: slice | None = None, etag: str = ETAG, **more: str | int) -> None:
    """The whole file or the wanted rest, of which only `sent` really goes out."""
    start = handler.offset(etag)
    rest = data[start:]
    headers = {"Content_Length": len(rest), "ETag": etag} | more
    if start:
        headers["Content_Range"] = headers.get("Content_Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.reply(206 if start else 200, rest[sent or slice(None)], **headers)


def honest(handler: Handler, data: bytes) -> None:
    part_of(handler, data)


def breaks_off(num_bytes: int) -> Answer:
    return lambda handler, data: part_of(handler, data, slice(num_bytes))


def announces(num_bytes: int) -> Answer:
    """All bytes, with another Content-Length."""
    return lambda handler, data: part_of(handler, data, Content_Length=num_bytes)


def cut(num_bytes: int) -> Answer:
    """The first bytes as if they were all."""
    return lambda handler, data: part_of(handler, data[:num_bytes])


def with_etag(etag: str) -> Answer:
    return lambda handler, data: part_of(handler, data, etag=etag)


def dated(num_bytes: int | None = None) -> Answer:
    """No ETag; the date proves the version."""

    def answer(handler: Handler, data: bytes) -> None:
        start = handler.offset(DATE)
        headers: dict[str, str | int] = {"Content_Length": len(data) - start, "Last_Modified": DATE}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.reply(206 if start else 200, data[start:][:num_bytes], **headers)

    return answer


def unmarked(num_bytes: int | None = None) -> Answer:
    """Neither ETag nor date."""
    return lambda handler, data: handler.reply(200, data[:num_bytes], Content_Length=len(data))


def whole(handler: Handler, data: bytes) -> None:
    """Knows no ranges."""
    handler.reply(200, data, Content_Length=len(data), ETag=ETAG)


def stale_rest(etag: str) -> Answer:
    """Sends the rest without looking at If-Range, although the file is another one."""

    def answer(handler: Handler, data: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        headers: dict[str, str | int] = {"ETag": etag, "Content_Length": len(data) - start}
        if match:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.reply(206 if match else 200, data[start:], **headers)

    return answer


def no_rest(handler: Handler, data: bytes) -> None:
    """416 to whoever wants a rest."""
    if handler.headers.get("Range"):
        handler.reply(416, Content_Range=f"bytes */{len(data)}", Content_Length=0)
    else:
        whole(handler, data)


def wrong_rest(handler: Handler, data: bytes) -> None:
    """Calls bytes 0-9 the rest."""
    if handler.headers.get("Range"):
        handler.reply(206, data[:10], Content_Range=f"bytes 0-9/{len(data)}", Content_Length=10, ETag=ETAG)
    else:
        whole(handler, data)


def long_rest(handler: Handler, data: bytes) -> None:
    """Sends 100 bytes behind the end of the rest."""
    start = handler.offset()
    if start:
        body = data[start:] + bytes(100)
        place = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.reply(206, body, Content_Range=place, Content_Length=len(body), ETag=ETAG)
    else:
        whole(handler, data)


def endless(handler: Handler, data: bytes) -> None:
    """No size: the end of the connection is the end of the file."""
    handler.reply(200, data, ETag=ETAG)


def chunked(broken: bool) -> Answer:
    def answer(handler: Handler, data: bytes) -> None:
        half = len(data) // 2
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        body = f"{half:x}\r\n".encode() + data[:half] + b"\r\n"
        if not broken:
            body += f"{len(data) - half:x}\r\n".encode() + data[half:] + b"\r\n0\r\n\r\n"
        handler.reply(200, body, Transfer_Encoding="chunked", ETag=ETAG)

    return answer


def packed(handler: Handler, data: bytes) -> None:
    handler.reply(200, data, Content_Encoding="gzip", Content_Length=len(data))


def page(handler: Handler, _: bytes) -> None:
    body = b"<!DOCTYPE html><html><body>Sorry, this page has moved." + b" " * 2000 + b"</body></html>"
    handler.reply(200, body, Content_Length=len(body), Content_Type="text/html")


def status(code: int, **headers: str | int) -> Answer:
    return lambda handler, _: handler.reply(code, Content_Length=0, **headers)


def redirects(to: str) -> Answer:
    return status(302, Location=to)


def hangs_up(handler: Handler, _: bytes) -> None:
    """Closes the connection without an answer."""
    handler.close_connection = True


def stalls(num_bytes: int) -> Answer:
    """Sends the first bytes of the file or rest and then nothing, until `release`."""

    def answer(handler: Handler, data: bytes) -> None:
        part_of(handler, data, slice(num_bytes))
        handler.wfile.flush()
        handler.server.release.wait(300)

    return answer
