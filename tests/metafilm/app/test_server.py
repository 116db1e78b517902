"""Other sites can't use it through the person's browser; nothing is read or held without bound."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, suppress

import pytest

from metafilm.app import Desk, Server, server
from metafilm.cli import main
from metafilm.errors import MetafilmError

CROSS = [[[0.5, 0.2], [0.5, 0.8]], [[0.3, 0.5], [0.7, 0.5]]]
ZED = [[[0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8]]]


def test_the_page_and_its_files(client):
    for path, kind in (
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/shared.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ):
        status, content, headers = client.send("GET", path)
        assert status == 200 and headers["Content-Type"].startswith(kind) and len(content) > 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert b"http://" not in content.replace(b"http://www.w3.org/", b"") and b"https://" not in content
    for path in ("/nothing", "/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/index.html/.."):
        assert client.send("GET", path)[0] == 404


def test_teaching_and_asking(client):
    for key, strokes in enumerate((CROSS, ZED)):
        status, found = client.post(f"/api/example?class={key}", strokes)
        assert status == 200 and found["example"]
    status, found = client.post("/api/ask", ZED)
    assert status == 200 and found["classes"] == [0, 1] and found["after"][1] > 0.9
    assert sum(found["after"]) == pytest.approx(1, abs=1e-5)
    status, found = client.post("/api/forget", [1])
    assert status == 200 and "at least two classes" in client.post("/api/ask", ZED)[1]["refused"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://localhost:{port}"},  # another origin than the page's, 127.0.0.1
        {"Sec_Fetch_Site": "cross-site"},
        {"X_Metafilm": None},
    ],
)
def test_another_site_is_refused(client, headers):
    headers = {name: value and value.format(port=client.port) for name, value in headers.items()}
    status, found = client.post("/api/session", **headers)
    assert status == 403 and "from this page alone" in found["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "", "127.0.0.1.evil.example", None])
def test_a_name_that_only_points_here_is_refused(client, host):
    host = host and host.format(port=client.port)
    for method, path in (("GET", "/"), ("GET", "/api/about"), ("POST", "/api/session")):
        assert client.send(method, path, Host=host)[0] == 421
    for name in ("localhost", "LOCALHOST", f"127.0.0.1:{client.port}", f"[::1]:{client.port}"):
        assert client.send("GET", "/api/about", Host=name)[0] == 200


def test_bodies_are_bounded(client, monkeypatch):
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    monkeypatch.setattr(server, "DRAINED", 3000)
    status, found = client.post("/api/example?class=0", b"x" * 2000)
    assert status == 413 and "make it smaller" in found["error"]
    assert client.send("POST", "/api/session", Content_Length=None)[0] == 411
    assert client.send("POST", "/api/session", Content_Length="-5")[0] == 411
    assert client.send("POST", "/api/session", Content_Length="ten")[0] == 411
    status, found, headers = client.send("POST", "/api/session", Content_Length="9" * 5000)
    assert status == 400 and "5000 digits" in found["error"] and headers["Connection"] == "close"


def test_text_is_bounded_before_it_is_read(client, monkeypatch):
    """A list of a million numbers takes a hundred times its bytes."""
    read = json.loads
    monkeypatch.setattr(json, "loads", lambda text: read(text) if len(text) < 1 << 20 else 1 / 0)
    _, found = client.post("/api/example?class=0", [[[0.5, 0.5]] * 200_000])
    assert found["status"] == 413 and "MB of text, 1 at most" in found["refused"]


@pytest.mark.parametrize(("method", "path"), [("GET", "http://["), ("POST", "http://[/api/session")])
def test_an_address_that_is_none_is_refused(client, method, path):
    status, found, headers = client.send(method, path)
    assert status == 400 and "address" in found["error"] and headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/example?class=0", b"{no json", "no JSON"),
        ("/api/example", b"[]", "which class"),
        ("/api/example?class=-1", b"[]", "which class"),
        ("/api/example?class=0", b'{"a": 1}', "list of strokes"),
        ("/api/example?class=0", b"[[[0.5, 1" + b"0" * 400 + b"]]]", "a point is"),
        ("/api/example?class=0", b"[[[0.5, NaN]]]", "a point is"),
        ("/api/forget", b'["a"]', "list of examples"),
        ("/api/forget", b"[" * 100_000, "no JSON"),
        ("/api/task", b"{}", "two classes"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(client, path, body, said):
    status, found, _ = client.send(
        "POST", f"{path}{'&' if '?' in path else '?'}session={client.session}", body
    )
    assert status == 200 and said in found["refused"] and "\n" not in found["refused"]


def test_unknown_actions_and_pages(client):
    assert client.post("/api/nothing")[0] == 404
    client.session = "none"
    assert client.post("/api/ask", CROSS)[1]["status"] == 410


def test_too_many_connections_are_closed(make_learner, running, Client, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    with running(make_learner()) as one, ExitStack() as idle:
        client = Client(one, opened=False)
        for _ in range(3):
            idle.enter_context(socket.create_connection(("127.0.0.1", client.port)))
        with pytest.raises(OSError):  # taken after the others, and closed
            client.send("GET", "/api/about")
        idle.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(OSError):
                assert client.send("GET", "/api/about")[0] == 200
                return
            time.sleep(0.05)
        raise AssertionError("it did not take connections again")


def test_beyond_loopback_names_of_others_are_still_refused(make_learner):
    with Server(Desk(make_learner(), "x"), "0.0.0.0", 0) as open_server:
        assert not open_server.loopback and open_server.url.startswith("http://127.0.0.1:")
        assert open_server.knows("192.168.1.20:80") and open_server.knows("localhost")
        assert not open_server.knows("evil.example:80") and not open_server.knows("")
        taken = open_server.server_address[1]
        with pytest.raises(MetafilmError, match=f"port {taken}: .*choose another --port"):
            Server(Desk(make_learner(), "x"), "0.0.0.0", taken)
    assert server.is_loopback("::1") and not server.is_loopback("example.org")


@pytest.mark.slow
def test_the_command_serves_until_interrupted():
    """Its page can be fetched at the address it prints; Ctrl-C ends it without a word of Python."""
    words = [sys.executable, "-m", "metafilm", "app", "--port", "0"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # a job in the background of a shell ignores Ctrl-C, and its children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[2]
        assert b"Show it a few examples" in urllib.request.urlopen(url, timeout=10).read()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "ended" in out and not errors
    finally:
        process.kill()
        process.communicate()


def test_the_command_says_what_is_wrong(capsys):
    assert main(["app", "omniglot-conv5"]) == 2
    assert "neither a run directory" in capsys.readouterr().err
    assert main(["app", "--port", "70000"]) == 2
    assert "--port must be from 0 to 65535, is 70000" in capsys.readouterr().err
