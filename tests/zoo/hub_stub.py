"""A hub on this machine: the few routes that reading and publishing need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Repositories as lists of commits, each a mapping of paths to contents."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        """By "OWNER/NAME" of models and "datasets/OWNER/NAME" of datasets."""
        self.asked: list[str] = []
        """Paths, in order."""
        self.meanwhile: dict[str, bytes] | None = None
        """Files that somebody else publishes while an upload is being prepared."""
        self.parents: list[str | None] = []
        """Which state each commit said that it was built upon."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Contents of a repository at a revision."""
        for files in self.commits[repo]:
            if revision == sha(files):
                return files
        return self.commits[repo][-1]


def sha(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + files[path])
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _send(self, code: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, what: str) -> None:
        self._send(404, b"{}", X_Error_Code=what, X_Error_Message=what)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif parts[:2] == ["api", "datasets"] and parts[4:5] == ["tree"]:
            self._tree("/".join(parts[1:4]), parts[5], "/".join(parts[6:]))
        elif parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self._info("/".join(parts[1:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) > 5 and parts[0] == "datasets" and parts[3] == "resolve":
            self._file("/".join(parts[:3]), parts[4], "/".join(parts[5:]))
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._send(404)

    do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

    def _info(self, repo: str, revision: str) -> None:
        if repo not in self.server.commits:
            return self._missing("RepoNotFound")
        files = self.server.files(repo, revision)
        body = {
            "id": repo,
            "sha": sha(files),
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }
        return self._send(200, json.dumps(body).encode())

    def _tree(self, repo: str, revision: str, below: str) -> None:
        """Files in a folder, and, at the top, the folders."""
        if repo not in self.server.commits:
            return self._missing("RepoNotFound")
        rows = []
        for path, content in self.server.files(repo, revision).items():
            folder = path.rpartition("/")[0]
            row = {"path": path, "size": len(content), "oid": "0" * 40}
            if folder == below:
                rows.append({"type": "file", **row})
            elif not below:
                rows.append({"type": "directory", "path": folder, "oid": "0" * 40})
        return self._send(200, json.dumps(rows).encode())

    def _file(self, repo: str, revision: str, path: str) -> None:
        if repo not in self.server.commits:
            return self._missing("RepoNotFound")
        files = self.server.files(repo, revision)
        if path not in files:
            return self._missing("EntryNotFound")
        content = files[path]
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, ETag=f'"{etag}"', X_Repo_Commit=sha(files))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            request = json.loads(body)
            owner = request.get("organization")
            repo = f"{owner}/{request['name']}" if owner else request["name"]
            self.server.commits.setdefault(repo, [{}])
            self._send(200, json.dumps({"url": f"{self.server.url}/{repo}"}).encode())
        elif parts[-1] == "validate-yaml":
            self._send(200, b'{"errors": [], "warnings": []}')
        elif "preupload" in parts:
            if self.server.meanwhile is not None:
                self.server.commits["/".join(parts[2:4])].append(self.server.meanwhile)
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._send(200, json.dumps({"files": files}).encode())
        elif "commit" in parts:
            self._commit("/".join(parts[2:4]), body)
        else:
            self._send(404)

    def _commit(self, repo: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        parent = header.get("parentCommit")
        self.server.parents.append(parent)
        files = self.server.commits[repo][-1]
        if parent is not None and parent != sha(files):
            return self._send(412, b'{"error": "A commit has happened since"}')
        files = dict(files)
        for line in lines:
            if line["key"] == "file":
                value = line["value"]
                files[value["path"]] = base64.b64decode(value["content"])
        self.server.commits[repo].append(files)
        answer = {
            "success": True,
            "commitOid": sha(files),
            "commitUrl": f"{self.server.url}/{repo}/commit/{sha(files)}",
        }
        return self._send(200, json.dumps(answer).encode())


@contextmanager
def hub() -> Iterator[Hub]:
    """Runs an empty hub in a thread."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
