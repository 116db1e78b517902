"""A server on this machine that speaks the part of the Hugging Face Hub's API that huggingface_hub uses for
whole-file downloads and for uploads in one commit (preupload, LFS batch and put, commit)."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_for_tests"


class Hub(ThreadingHTTPServer):
    """``repositories``: name -> path -> bytes, all at one commit each. ``truncate``: bodies end half way.
    ``requests``: method and path of all that was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}  # LFS objects by their hash
        self.messages: list[str] = []
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        self.truncate = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        length = headers.pop("Content_Length", str(len(body)))
        for name, value in {**headers, "Content_Length": length}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def as_json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def error(self, status: int, code: str) -> None:
        self.answer(status, b"{}", X_Error_Code=code, X_Error_Message=f"{code} it is")

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            return self.error(404, "EntryNotFound")
        files = self.server.repositories.get(match[1])
        if files is None:
            return self.error(401 if self.headers.get("Authorization") is None else 404, "RepoNotFound")
        if match[2] not in ("main", commit(files)):
            return self.error(404, "RevisionNotFound")
        if match[3] not in files:
            return self.error(404, "EntryNotFound")
        content = files[match[3]]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        body = content[: len(content) // 2] if self.server.truncate else content
        self.close_connection = self.server.truncate
        self.answer(200, body, ETag=tag, X_Repo_Commit=commit(files), Content_Length=str(len(content)))

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.stored[hashlib.sha256(body).hexdigest()] = body
        self.answer(200)

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, b'{"error": "Invalid username or password."}')
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if name in self.server.repositories:
                return self.as_json({"error": "exists", "url": f"{self.server.address}/{name}"}, 409)
            self.server.repositories[name] = {}
            self.server.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
            return self.as_json({"url": f"{self.server.address}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            wrong = [] if isinstance(header, dict) else [{"message": "the header is no mapping"}]
            return self.as_json({"errors": wrong, "warnings": []})
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            asked = json.loads(body)["files"]
            return self.as_json({"files": [{
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            } for one in asked]})  # fmt: skip
        if re.fullmatch(r"/.+\.git/info/lfs/objects/batch", self.path):
            asked = json.loads(body)["objects"]
            address = f"{self.server.address}/lfs/"
            return self.as_json({"transfer": "basic", "objects": [{
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": address + one["oid"]}},
            } for one in asked]})  # fmt: skip
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            files = self.server.repositories[match[1]]
            for line in map(json.loads, body.decode().strip().splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    self.server.messages.append(value["summary"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.stored[value["oid"]]
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
            oid = commit(files)
            address = f"{self.server.address}/{match[1]}/commit/{oid}"
            return self.as_json({"commitUrl": address, "commitOid": oid, "success": True})
        self.answer(404, b"{}")


def commit(files: dict[str, bytes]) -> str:
    """A commit's name: of the contents."""
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + files[name])
    return digest.hexdigest()
