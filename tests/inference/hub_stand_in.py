"""A server with as much of the Hugging Face hub's HTTP interface as uploads and downloads of models need."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


@dataclass
class Repository:
    """The files of each branch, and of each commit."""

    private: bool
    revisions: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: dict[str, str] = field(default_factory=dict)  # of branches

    def commit(self, branch: str) -> str:
        return self.commits.setdefault(branch, sha1(branch.encode()).hexdigest())


@dataclass
class Hub:
    """What the server holds: repositories by id."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    refused: tuple[int, str] | None = None  # status and message of every answer


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        held = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, hub = unquote(urlsplit(self.path).path), self.held
        if hub.refused:
            return self._refuse(hub.refused[0], "", hub.refused[1])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "", "Invalid username or password.")
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            if name in hub.repositories:
                return self._answer(409, {"url": f"{hub.endpoint}/{name}", "error": "exists"})
            hub.repositories[name] = Repository(given.get("visibility") == "private" or bool(given.get("private")))
            return self._answer(200, {"url": f"{hub.endpoint}/{name}", "name": name})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/(.+)", path)
        assert match, path
        repository, revision = hub.repositories[match[1]], match[3]
        if match[2] == "branch":
            repository.revisions.setdefault(revision, dict(repository.revisions["main"]))
            return self._answer(200, {})
        if match[2] == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return self._answer(200, {"files": modes})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                repository.revisions[revision][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del repository.revisions[revision][line["value"]["path"]]
        repository.commits[revision] = sha1(body).hexdigest()
        repository.revisions[repository.commits[revision]] = dict(repository.revisions[revision])
        oid = repository.commits[revision]
        url = f"{hub.endpoint}/{match[1]}/commit/{oid}"
        return self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def do_GET(self) -> None:
        path, hub = unquote(urlsplit(self.path).path), self.held
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/(.+))?", path):
            if match[1] not in hub.repositories:
                return self._refuse(404, "RepoNotFound", "Repository not found")
            repository, revision = hub.repositories[match[1]], match[2] or "main"
            files = repository.revisions[revision]
            if "/tree/" in path:
                listed = [{"type": "file", "path": name, "size": len(x), "oid": "0"} for name, x in files.items()]
                return self._answer(200, listed)
            siblings = [{"rfilename": name} for name in files]
            sha = repository.commit(revision)
            return self._answer(200, {"id": match[1], "sha": sha, "siblings": siblings, "private": repository.private})
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not match:
            return self._refuse(404, "", "Not found")
        if match[1] not in hub.repositories:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        repository, revision = hub.repositories[match[1]], match[2]
        if repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "RepoNotFound", "Repository not found")
        if revision not in repository.revisions:
            return self._refuse(404, "RevisionNotFound", "Revision not found")
        if match[3] not in repository.revisions[revision]:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        content = repository.revisions[revision][match[3]]
        commit = repository.commit(revision) if revision in repository.commits else revision
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha1(content).hexdigest()}"'}
        return self._answer(200, content, headers)

    do_HEAD = do_GET
