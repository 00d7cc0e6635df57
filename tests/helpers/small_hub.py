"""A small server with the endpoints of Hugging Face's Hub that an upload and a download need."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretsecretsecret"


@dataclass
class SmallHub:
    """What the server holds, and how it behaves."""

    address: str = ""
    repositories: dict = field(default_factory=dict)
    """Files by name, of each repository."""
    private: set = field(default_factory=set)
    commits: list = field(default_factory=list)
    """The lines of each commit."""
    stored: dict = field(default_factory=dict)
    """Contents by SHA-256, of large files."""
    refuse: dict = field(default_factory=dict)
    """Status by start of the path: such requests are refused."""

    def sha(self, name):
        return hashlib.sha1(f"{name}{len(self.commits)}".encode()).hexdigest()


@contextlib.contextmanager
def small_hub():
    """Yield a running SmallHub."""
    hub = SmallHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self._serve(self._post)

    def do_PUT(self):
        self._serve(self._put)

    def do_GET(self):
        self._serve(self._get)

    def do_HEAD(self):
        self._serve(self._get)

    def _serve(self, answer):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        refused = next((code for start, code in self.hub.refuse.items() if path.startswith(start)), None)
        if refused:
            self._send({"error": f"refused: {self.headers.get('Authorization')}"}, refused)
        else:
            answer(path)

    def _send(self, value, status=200, **headers):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _post(self, path):
        hub = self.hub
        if path == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            wanted = json.loads(self.body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            hub.repositories[name] = {".gitattributes": b"*.onnx filter=lfs diff=lfs merge=lfs -text\n"}
            hub.private |= {name} if wanted.get("private") or wanted.get("visibility") == "private" else set()
            self._send({"url": f"{hub.address}/{name}", "name": name, "id": name})
        elif "/preupload/" in path:
            files = json.loads(self.body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".onnx") else "regular",
                    "shouldIgnore": False,
                }
                for f in files
            ]
            self._send({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(self.body)["objects"]
            actions = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/store/{one['oid']}", "header": {}}}}
                for one in objects
            ]
            self._send({"transfer": "basic", "objects": actions})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(found[1])
        else:
            self._send({"error": f"no such endpoint: {path}"}, 404)

    def _commit(self, name):
        hub, lines = self.hub, [json.loads(line) for line in self.body.splitlines()]
        files = dict(hub.repositories[name])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        hub.repositories[name] = files
        hub.commits.append(lines)
        address = f"{hub.address}/{name}/commit/{hub.sha(name)}"
        self._send({"success": True, "commitUrl": address, "commitOid": hub.sha(name), "hookOutput": ""})

    def _put(self, path):
        digest = path.rpartition("/")[2]
        assert hashlib.sha256(self.body).hexdigest() == digest
        self.hub.stored[digest] = self.body
        self._send(b"")

    def _get(self, path):
        hub = self.hub
        if path == "/api/whoami-v2":
            self._send({"type": "user", "name": "me", "auth": {}})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/([^/]+))?", path):
            self._describe(found[1], "/tree/" in path)
        elif (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) and found[1] in hub.repositories:
            content = hub.repositories[found[1]][found[3]]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._send(content, X_Repo_Commit=hub.sha(found[1]), ETag=etag)
        else:
            self._send({"error": f"no such endpoint: {path}"}, 404)

    def _describe(self, name, tree):
        hub = self.hub
        if name not in hub.repositories:
            self._send({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return
        files = hub.repositories[name]
        if tree:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            self._send(entries)
            return
        siblings = [{"rfilename": path} for path in files]
        private = name in hub.private
        self._send({"_id": "1", "id": name, "sha": hub.sha(name), "private": private, "siblings": siblings})
