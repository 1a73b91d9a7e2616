"""A file on a web server from a given byte on, with the standard library: what the server's answer means.

An answer is believed as little as possible: a rest is only asked for with a proof that the file is still the same one
(`If-Range`), and only taken when it begins where ours ends. What goes wrong comes out as one of three exceptions.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 16
MAX_REDIRECTS = 10
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_RETRY_AFTER_S = 60


class RefusedError(Exception):
    """This address does not give the file, and asking again will not help."""


class TryAgainError(Exception):
    """The transfer failed in a way that passes; `wait_s` is how long the server asks to wait."""

    def __init__(self, reason: str, wait_s: float = 0.0):
        super().__init__(reason)
        self.wait_s = wait_s


class CannotResumeError(Exception):
    """The file is another one than before, or the server does not give its rest: begin anew."""


@dataclass(frozen=True)
class Version:
    """Which content an address had: its size in bytes and the server's two marks for it, None where it gave none."""

    size: int | None
    etag: str | None
    last_modified: str | None

    @property
    def proof(self) -> str | None:
        """The mark that `If-Range` takes (RFC 9110, 13.1.5): a strong ETag, or else the date."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


@dataclass(frozen=True)
class Body:
    """An answer whose bytes belong at `start` of the file of that `version`."""

    response: IO[bytes]
    start: int
    version: Version

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes as they come; TryAgainError when the connection breaks."""
        while True:
            try:
                chunk = self.response.read1(CHUNK_BYTES)  # type: ignore[attr-defined]  # of http.client.HTTPResponse
            except (OSError, http.client.HTTPException) as err:
                raise TryAgainError(f"the connection broke ({_say(err)})") from err
            if not chunk:
                return
            yield chunk


def mirrored(url: str, mirror: str | None) -> str:
    """Return `url` with its scheme and host replaced by `mirror`, such as http://host:8000/prefix."""
    if mirror is None:
        return url
    parts = urlsplit(url)
    return mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def open_from(url: str, offset: int, version: Version | None, timeout_s: float) -> Body:
    """Ask for `url` from byte `offset` on; `version` is what the bytes before it belong to.

    Raises:
        RefusedError, TryAgainError, CannotResumeError: see there.
    """
    headers = {"User-Agent": "mmpt-download", "Accept-Encoding": "identity"}
    if offset:
        proof = version.proof if version is not None else None
        assert proof, "a rest is only asked for with a proof"
        headers |= {"Range": f"bytes={offset}-", "If-Range": proof}
    try:
        response = _OPENER.open(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as err:
        with err:
            raise _meaning(err, offset) from None
    except (ValueError, http.client.InvalidURL) as err:
        raise RefusedError(f"no address that can be asked ({err})") from None
    except (OSError, http.client.HTTPException) as err:
        if isinstance(getattr(err, "reason", err), ssl.SSLCertVerificationError):
            raise RefusedError(f"its certificate is not valid ({_say(err)})") from None
        raise TryAgainError(_say(err)) from None
    try:
        return _body(response, offset, version)
    except BaseException:
        response.close()
        raise


def _body(response: Any, offset: int, version: Version | None) -> Body:
    headers = response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RefusedError(f"the server packs the file on its way ({headers['Content-Encoding']}), so it has no size")
    marks = (headers.get("ETag"), headers.get("Last-Modified"))
    if response.status == 200:
        return Body(response, 0, Version(_number(headers.get("Content-Length")), *marks))
    if response.status != 206:
        raise RefusedError(f"the server answers {response.status} {response.reason}")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != offset:
        raise CannotResumeError(f"asked for bytes from {offset} on, got `{headers.get('Content-Range')}`")
    now = Version(_number(match[2]), *marks)
    if version is None:
        return Body(response, offset, now)
    for old, new, what in zip(
        (version.size, version.etag, version.last_modified), (now.size, *marks), ("size", "ETag", "date"), strict=True
    ):
        if None not in (old, new) and old != new:
            raise CannotResumeError(f"the file there has changed: its {what} was {old} and is {new}")
    return Body(response, offset, version)


def _meaning(err: urllib.error.HTTPError, offset: int) -> Exception:
    reason = f"the server answers {err.code} {err.reason}".strip().replace("\n", " ")
    if err.code == 416 and offset:
        return CannotResumeError(reason)
    if err.code in TRANSIENT:
        wait_s = _number(err.headers.get("Retry-After")) or 0
        return TryAgainError(reason, min(wait_s, LONGEST_RETRY_AFTER_S))
    return RefusedError(reason)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows at most `MAX_REDIRECTS`, no circle, to web addresses only, and never from https to http."""

    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise RefusedError(f"it is redirected from {old} to {newurl}, which is less safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\s*\d+\s*", text, re.ASCII) else None


def _say(err: BaseException) -> str:
    return str(getattr(err, "reason", err)) or type(err).__name__
