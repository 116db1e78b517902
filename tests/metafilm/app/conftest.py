"""A server on a free port, and what speaks to it as the page does."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from metafilm import MetaFiLM
from metafilm.app import Server
from scripts.reusing.serving import running


class Client:
    """Requests with the page's own headers, unless told otherwise."""

    def __init__(self, server: Server, opened: bool = True) -> None:
        self.port = server.server_address[1]
        self.headers = {"Host": f"127.0.0.1:{self.port}", "X-Metafilm": "1"}
        self.session = self.post("/api/session")[1]["session"] if opened else ""

    def send(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> tuple[int, Any, dict]:
        """Status, content (JSON read) and headers; a header given as None is left out."""
        sent = {**self.headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        kind = answer.headers.get_content_type()
        read = json.loads(content) if kind == "application/json" else content
        return answer.status, read, dict(answer.headers)

    def post(self, path: str, value: Any = None, **headers: str | None) -> tuple[int, Any]:
        """To an action; bytes as a picture, everything else as JSON."""
        if path != "/api/session":
            path += f"{'&' if '?' in path else '?'}session={self.session}"
        if isinstance(value, bytes):
            return self.send("POST", path, value, **{"Content_Type": "image/png", **headers})[:2]
        return self.send("POST", path, json.dumps(value).encode(), **headers)[:2]


@pytest.fixture(scope="session")
def omniglot_server() -> Iterator[Server]:
    with running(MetaFiLM.from_pretrained("omniglot-conv4"), "omniglot-conv4") as server:
        yield server


@pytest.fixture
def client(omniglot_server) -> Client:
    return Client(omniglot_server)


@pytest.fixture(name="running")
def running_fixture() -> Callable:
    return running


@pytest.fixture(name="Client")
def client_class() -> type[Client]:
    return Client
