"""A Hugging Face hub of a few models, on this machine: what its clients ask for, and no more."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Models by name, each a folder, at one commit that is also called main and v1."""

    def __init__(self) -> None:
        self.models: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.cut: set[str] = set()
        """Files of which half is sent."""
        self.asked: list[str] = []
        self.fetched: list[str] = []
        """Names of the files whose content was sent."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append(f"{request.command} {path}")
        if path.startswith("/api/models/"):
            owner, name, what, revision = [*path.split("/")[3:], "", ""][:4]
            folder = self.models.get(f"{owner}/{name}")
            if folder is None:
                return self.refuse(request, 401, "RepoNotFound")
            if revision not in ("main", "v1", COMMIT):
                return self.refuse(request, 404, "RevisionNotFound")
            files = sorted(file for file in folder.iterdir() if file.is_file())
            if what == "revision":
                siblings = [{"rfilename": file.name} for file in files]
                found = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings}
                return self.send(request, json.dumps(found).encode())
            entries = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": oid(f)}
                for f in files
            ]
            return self.send(request, json.dumps(entries).encode())
        if path.count("/") != 5:
            return self.refuse(request, 404, "EntryNotFound")
        owner, name, _, _, file_name = path.split("/")[1:]
        folder = self.models.get(f"{owner}/{name}")
        if folder is None:
            return self.refuse(request, 401, "RepoNotFound")
        if f"{owner}/{name}" in self.gated:
            return self.refuse(request, 403, "GatedRepo")
        file = folder / file_name
        if not file.is_file():
            return self.refuse(request, 404, "EntryNotFound")
        if request.command == "GET":
            self.fetched.append(file_name)
        return self.send(request, file.read_bytes(), oid(file), is_cut=file_name in self.cut)

    def send(
        self, request: BaseHTTPRequestHandler, content: bytes, etag: str = "", is_cut: bool = False
    ) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("Content-Type", "application/json")
        if etag:
            request.send_header("ETag", f'"{etag}"')
            request.send_header("X-Repo-Commit", COMMIT)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content[: len(content) // 2] if is_cut else content)
            request.close_connection = is_cut

    def refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.send_header("X-Error-Code", code)
        request.end_headers()


def oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def serving():
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
