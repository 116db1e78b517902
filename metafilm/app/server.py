"""The page's server: Python's own, with what a page open to a browser needs to be safe.

Other sites must not reach it through the person's browser. A name of theirs that points to this machine (DNS
rebinding) is seen by its Host; a form or script of theirs by its Origin, and because it can't send the header
that the page sends. Nothing is read beyond the limits, and no file is served but the page's own.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from episodes import EpisodesError
from metafilm.app.desk import Desk
from metafilm.app.limits import MOST_BYTES, MOST_CONNECTIONS, MOST_JSON, Refused
from metafilm.errors import MetafilmError
from metafilm.report import style

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ACTIONS = tuple(f"/api/{name}" for name in ("session", "example", "forget", "adapt", "ask", "task"))
OURS = "X-Metafilm"  # a header that no other site can make a browser send here
LENGTH_DIGITS = 18  # of a body's length: Python itself refuses to read a number of thousands
DRAINED = 4 * MOST_BYTES  # of a body that is too large: read and dropped, so that the answer is heard


class Server(ThreadingHTTPServer):
    """Serves one desk's page.

    Args:
        desk: answers.
        host, port: where to listen; port 0 takes any that is free.

    Raises:
        MetafilmError: the address can't be had.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, desk: Desk, host: str = "127.0.0.1", port: int = 8321) -> None:
        self.desk = desk
        self.files = page_files()
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise MetafilmError(
                f"can't listen on {host} port {port}: {getattr(error, 'strerror', None) or error}; choose "
                "another --port (0: any that is free) or --host"
            ) from error
        self.host = host
        self.loopback = is_loopback(host)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def knows(self, host: str) -> bool:
        """Whether a request that names this host may be for us: on loopback its addresses and localhost, else
        any address, and the names of this machine; never a name of somebody else's."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").rstrip(".").lower()
        if name in ("localhost", self.host.lower()):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or not self.loopback
        except ValueError:
            return not self.loopback and name in (socket.gethostname().lower(), socket.getfqdn().lower())

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def page_files() -> dict[str, tuple[str, bytes]]:
    """Path -> (kind, content) of all there is to fetch."""
    found = {
        f"/{path.name}": (KINDS[path.suffix], path.read_bytes())
        for path in sorted(PAGE.iterdir())
        if path.suffix in KINDS
    }
    found["/"] = found.pop("/index.html")
    found["/shared.css"] = ("text/css", style().encode())
    return found


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "metafilm", ""
    timeout = 20  # seconds, of a connection on which nothing comes
    disable_nagle_algorithm = True  # an answer is small, and waited for
    wbufsize = 1 << 16  # headers and content in one packet

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each stroke would bury what matters."""

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_POST(self) -> None:
        self._serve(self._post)

    def _serve(self, answer: Any) -> None:
        try:
            self._require_ours()
            kind, content = answer()
            self._send(200, kind, content)
        except Refused as error:
            self._say(error.status, str(error))
        except OSError:  # the browser went away
            raise
        except Exception as error:
            traceback.print_exc()
            self._say(
                500, f"something went wrong here ({type(error).__name__}); the terminal has the details"
            )

    def _require_ours(self) -> None:
        """Raise Refused for what another site may have sent."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if not self.server.knows(host):
            self.close_connection = True
            raise Refused(f"this page is not served under the name {host[:80]!r}", 421)
        foreign = origin is not None and origin != f"http://{host}"
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if self.command == "POST" and (
            foreign or site not in ("same-origin", "none") or self.headers.get(OURS) is None
        ):
            self.close_connection = True
            raise Refused("requests are taken from this page alone", 403)

    def _get(self) -> tuple[str, bytes]:
        path = self._address().path
        if path == "/api/about":
            return _json(self.server.desk.about())
        if path not in self.server.files:
            raise Refused(f"there is no {path[:80]} here", 404)
        return self.server.files[path]

    def _post(self) -> tuple[str, bytes]:
        body = self._body()
        parts = self._address()
        if parts.path not in ACTIONS:
            raise Refused(f"there is no {parts.path[:80]} here", 404)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            return self._act(parts.path, asked, body)
        except (MetafilmError, EpisodesError) as error:
            # what a person is told is an answer like others, not a failure in the browser's console
            return _json({"refused": str(error), "status": getattr(error, "status", 400)})

    def _act(self, action: str, asked: dict[str, str], body: bytes) -> tuple[str, bytes]:
        desk = self.server.desk
        if action == "/api/session":
            return _json({"session": desk.sessions.new().token})
        session = desk.sessions.get(asked.get("session", ""))
        if action == "/api/example":
            return _json(desk.add(session, _number(asked.get("class")), self._content(body)))
        if action == "/api/forget":
            numbers = _read(body)
            if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
                raise Refused("a list of examples' numbers was expected")
            session.forget(numbers)
            return _json({})
        if action == "/api/adapt":
            return _json(desk.adaptation(session))
        if action == "/api/ask":
            return _json(desk.answer(session, self._content(body)))
        return "application/octet-stream", desk.task_file(session, _read(body))

    def _address(self) -> SplitResult:
        try:
            return urlsplit(self.path)
        except ValueError as error:
            self.close_connection = True
            raise Refused("the request's address can't be read") from error

    def _content(self, body: bytes) -> Any:
        """Strokes where JSON was sent, else a picture's bytes."""
        return _read(body) if self.headers.get_content_type() == "application/json" else body

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            raise Refused("a request must say how long it is (Content-Length)", 411)
        if len(length) > LENGTH_DIGITS:
            self.close_connection = True
            raise Refused(f"a length of {len(length)} digits (Content-Length) is none")
        size = int(length)
        if size > MOST_BYTES:
            self.close_connection = True
            left = min(size, DRAINED)
            while left > 0 and (part := self.rfile.read(min(left, 1 << 16))):
                left -= len(part)
            limit = f"{MOST_BYTES / 1e6:.0f} at most: make it smaller"
            raise Refused(f"it has {size / 1e6:.0f} MB, {limit}", 413)
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
            raise Refused("the request ended too early")
        return body

    def _say(self, status: int, message: str) -> None:
        kind, content = _json({"error": message})
        self._send(status, kind, content)

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        text = "; charset=utf-8" if kind.startswith("text/") or kind == "application/json" else ""
        self.send_header("Content-Type", kind + text)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


def _read(body: bytes) -> Any:
    if len(body) > MOST_JSON:  # objects of Python's take many times its room
        raise Refused(
            f"it has {len(body) / 1e6:.1f} MB of text, {MOST_JSON / 1e6:.0f} at most: draw less", 413
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("the request is no JSON") from error


def _number(text: str | None) -> int:
    if text is None or not text.isdecimal() or len(text) > 6:
        raise Refused("which class the example is of was not said")
    return int(text)
