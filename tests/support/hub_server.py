"""A stand-in for the Hugging Face Hub on this machine.

It has the endpoints that `huggingface_hub` needs to create a repository of a model, to upload a
folder over LFS, and to download a snapshot.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

import huggingface_hub.constants
import pytest

TOKEN = "hf_of_the_test"
OWNER = "me"
"""The user that the token belongs to."""


@dataclass
class Repo:
    """A repository. `commits` has all files of each commit, by the hash of the commit."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""

    def commit(self, files: dict[str, bytes]) -> str:
        """Adds a commit that changes these files, and returns its hash."""
        whole = self.commits.get(self.head, {}) | files
        text = f"{len(self.commits)} {sorted(whole.items())}"
        self.head = hashlib.sha1(text.encode()).hexdigest()
        self.commits[self.head] = whole
        return self.head

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]


class Hub(ThreadingHTTPServer):
    """The server, with its repositories, its uploaded LFS objects, and the requests so far."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: dict[str, int] = {}  # part of a path -> status of the answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, files: dict[str, bytes], **kind: bool) -> Repo:
        """Adds a repository with one commit."""
        repo = self.repos[name] = Repo(**kind)
        repo.commit(files)
        return repo

    def handle_error(self, *_: object) -> None:
        """Ignores errors, because clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def answer_request(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        for part, status in self.server.failures.items():
            if part in path:
                return self.reply(status, {"error": "as the test wants it"})
        for method, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split():
                return answer(self, *found.groups())
        return self.reply(404, {"error": "no such page"})

    # The names that http.server calls.
    do_GET = do_HEAD = do_POST = do_PUT = answer_request  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    @property
    def is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def reply(self, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def create(self) -> None:
        """POST /api/repos/create"""
        values = json.loads(self.body)
        name = f"{values['organization']}/{values['name']}"
        if not self.is_owner:
            return self.reply(401, {"error": "Invalid username or password."})
        if values["organization"] != OWNER:
            return self.reply(403, {"error": f"You may not create {name}."})
        known = name in self.server.repos
        if not known:
            private = values.get("visibility") == "private"
            self.server.add(name, {".gitattributes": b""}, private=private)
        return self.reply(409 if known else 200, {"url": f"{self.server.url}/{name}"})

    def repo_or_error(self, name: str) -> Repo | None:
        """Returns a repository, or replies as the Hub does if this client may not see it."""
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not self.is_owner):
            self.reply(401, b"", X_Error_Code="RepoNotFound")
            return None
        return repo

    def info(self, name: str, revision: str | None = None) -> None:
        """GET /api/models/NAME/revision/REVISION"""
        if not (repo := self.repo_or_error(name)):
            return None
        sha = repo.head if revision in (None, "main") else revision
        if sha not in repo.commits:
            return self.reply(404, b"", X_Error_Code="RevisionNotFound")
        values = {"id": name, "modelId": name, "sha": sha, "private": repo.private}
        return self.reply(200, values | {"siblings": [], "tags": []})

    def tree(self, name: str, revision: str) -> None:
        """GET /api/models/NAME/tree/REVISION"""
        if not (repo := self.repo_or_error(name)):
            return
        rows = []
        for path, content in repo.commits[revision].items():
            oid = hashlib.sha1(content).hexdigest()
            rows.append(
                {"type": "file", "path": path, "size": len(content), "oid": oid}
            )
        self.reply(200, rows)

    def resolve(self, name: str, revision: str, path: str) -> None:
        """HEAD and GET /NAME/resolve/REVISION/PATH"""
        if not (repo := self.repo_or_error(name)):
            return None
        if repo.gated:
            return self.reply(403, b"", X_Error_Code="GatedRepo")
        sha = repo.head if revision == "main" else revision
        content = repo.commits[sha].get(path)
        if content is None:
            return self.reply(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self.reply(200, content, ETag=etag, X_Repo_Commit=sha)

    def validate(self) -> None:
        """POST /api/validate-yaml"""
        content = json.loads(self.body)["content"]
        huggingface_hub.ModelCard(content)  # raises an error for invalid metadata
        self.reply(200, {"errors": [], "warnings": []})

    def preupload(self, name: str, _revision: str) -> None:
        """POST /api/models/NAME/preupload/REVISION"""
        files = []
        for file in json.loads(self.body)["files"]:
            is_large = file["path"].endswith(".safetensors")
            mode = "lfs" if is_large else "regular"
            files.append(
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            )
        self.reply(200, {"files": files})

    def batch(self, _name: str) -> None:
        """POST /NAME.git/info/lfs/objects/batch"""
        objects = []
        for each in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.server.url}/objects/{each['oid']}", "header": {}}
            objects.append(each | {"actions": {"upload": upload}})
        self.reply(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        """PUT /objects/OID"""
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.objects[oid] = self.body
        self.reply(200)

    def commit(self, name: str, _revision: str) -> None:
        """POST /api/models/NAME/commit/REVISION"""
        if not (repo := self.repo_or_error(name)):
            return None
        if not self.is_owner:
            return self.reply(403, {"error": "You may not write here."})
        files = {}
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if operation["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        sha = repo.commit(files)
        url = f"{self.server.url}/{name}/commit/{sha}"
        return self.reply(200, {"commitUrl": url, "commitOid": sha})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", f"/api/models/{NAME}", Handler.info),
    ("GET", f"/api/models/{NAME}/revision/(.+)", Handler.info),
    ("GET", f"/api/models/{NAME}/tree/([^/]+)", Handler.tree),
    ("HEAD GET", f"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("POST", f"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", f"/{NAME}.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/objects/(.+)", Handler.store),
    ("POST", f"/api/models/{NAME}/commit/(.+)", Handler.commit),
)
"""Method, pattern of the path, and the function that answers."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def environment(hub: Hub, cache: Any) -> dict[str, str]:
    """Returns the variables with which a program uses the stand-in instead of the Hub.

    Large files are uploaded with LFS, because the stand-in does not speak the protocol of Xet.
    """
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
    }


def use_hub(hub: Hub, cache: Any, patch: pytest.MonkeyPatch) -> None:
    """Makes this process use the stand-in.

    `huggingface_hub` has read the variables at its import, so its constants are changed too.
    """
    for name, value in environment(hub, cache).items():
        patch.setenv(name, value)
    constants = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }
    for name, value in constants.items():
        patch.setattr(huggingface_hub.constants, name, value)
