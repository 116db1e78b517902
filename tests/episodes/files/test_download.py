"""Downloading from a server that misbehaves in the ways servers do, and unpacking archives that do."""

import functools
import hashlib
import http.server
import stat
import threading
import zipfile

import pytest

from episodes import EpisodesError
from episodes.files.download import fetch, has_checksum, unpack_zip

BODY = bytes(range(256)) * 2000
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """/good resumes; /norange doesn't; /cut breaks off once, /always-cut always; the others as they say."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, path = self.server, self.path
        server.asked.append((path, self.headers.get("Range")))
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        body, kind, cut = BODY, "application/zip", None
        if path == "/missing":
            return self.send_error(404)
        if path == "/html":
            body, kind = b"<html>sign in</html>", "text/html; charset=utf-8"
        elif path == "/page":
            body = b"\n <!DOCTYPE html><html>gone</html>"
        elif path == "/portal":
            body, kind = b"<html>sign in</html>", "text/plain"
        elif path == "/wrong":
            body = BODY[::-1]
        elif path == "/cut" and (server.asked.count((path, None)) == 1 and start == 0):
            cut = 100_000
        elif path == "/always-cut":
            cut = start + 1000
        elif path == "/silent":
            cut = 0
        ranged = start > 0 and path not in ("/norange", "/portal")
        if ranged and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        part = body[start:] if ranged else body
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Type", kind)
        if path != "/long":
            self.send_header("Content-Length", str(len(part)))
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(part if cut is None else body[start:cut])
        self.close_connection = True


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=functools.partial(running.serve_forever, 0.02))
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()
        thread.join()


def get(server, target, *paths, **options):
    return fetch([server.url + path for path in paths], target, MD5, **options)


def test_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    target = tmp_path / "deep" / "a.zip"
    assert get(server, target, "/good") == target and target.read_bytes() == BODY
    get(server, target, "/good")
    assert server.asked == [("/good", None)]
    assert not (target.parent / ".a.zip.part").exists()


def test_a_broken_connection_is_resumed(server, tmp_path):
    assert get(server, tmp_path / "a.zip", "/cut").read_bytes() == BODY
    assert server.asked == [("/cut", None), ("/cut", "bytes=100000-")]


def test_a_server_that_says_nothing_is_asked_once(server, tmp_path):
    assert get(server, tmp_path / "a.zip", "/silent", "/good").read_bytes() == BODY
    assert server.asked == [("/silent", None), ("/good", None)]


def test_a_later_call_resumes_what_an_earlier_one_left(server, tmp_path):
    with pytest.raises(EpisodesError, match=r"always-cut: the connection ended after 3000 of 512000 bytes"):
        get(server, tmp_path / "a.zip", "/always-cut")
    assert not (tmp_path / "a.zip").exists()
    assert get(server, tmp_path / "a.zip", "/good").read_bytes() == BODY
    assert server.asked[-1] == ("/good", "bytes=3000-")


def test_a_server_that_does_not_resume_starts_again(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(BODY[:777])
    assert get(server, tmp_path / "a.zip", "/norange").read_bytes() == BODY


def test_a_complete_part_is_only_renamed(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(BODY)
    assert get(server, tmp_path / "a.zip", "/good").read_bytes() == BODY  # the server answers 416


@pytest.mark.parametrize("rest", [b"something else", BODY[:50] + b"x" + BODY[51:600], BODY + b"tail"])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, rest):
    (tmp_path / ".a.zip.part").write_bytes(rest)
    assert get(server, tmp_path / "a.zip", "/good").read_bytes() == BODY


def test_mirrors_are_tried_in_order(server, tmp_path):
    found = get(server, tmp_path / "a.zip", "/missing", "/html", "/page", "/wrong", "/good", "/norange")
    assert found.read_bytes() == BODY
    assert [path for path, _ in server.asked] == ["/missing", "/html", "/page", "/wrong", "/good"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/missing", "/missing: HTTP Error 404"),
        ("/html", "a web page came instead of the file"),
        ("/page", "a web page came instead of the file"),
        ("/wrong", f"what came has checksum md5:{hashlib.md5(BODY[::-1]).hexdigest()}, expected {MD5}"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(server, tmp_path, path, says):
    with pytest.raises(EpisodesError, match=says):
        get(server, tmp_path / "a.zip", path)
    assert not (tmp_path / "a.zip").exists()
    part = tmp_path / ".a.zip.part"
    assert not part.exists() or part.stat().st_size == 0


def test_a_file_larger_than_expected_is_refused(server, tmp_path):
    with pytest.raises(EpisodesError, match="512000 bytes are announced, more than the 1000"):
        get(server, tmp_path / "a.zip", "/good", max_bytes=1000)


def test_more_than_was_expected_leaves_nothing(server, tmp_path):
    with pytest.raises(EpisodesError, match="more than the 100000 bytes expected at most came"):
        get(server, tmp_path / "a.zip", "/long", max_bytes=100_000)
    assert not (tmp_path / ".a.zip.part").exists()


def test_a_page_to_sign_in_on_leaves_what_there_is_to_resume(server, tmp_path):
    part = tmp_path / ".a.zip.part"
    part.write_bytes(BODY[:777])
    with pytest.raises(EpisodesError, match="a web page came"):
        get(server, tmp_path / "a.zip", "/portal")
    assert part.read_bytes() == BODY[:777]
    assert get(server, tmp_path / "a.zip", "/portal", "/good").read_bytes() == BODY
    assert server.asked[-1] == ("/good", "bytes=777-")


def test_a_closed_port_and_other_schemes(server, tmp_path):
    (tmp_path / "local").write_bytes(BODY)
    with pytest.raises(EpisodesError, match=r"(?s)file:.*only http and https.*127\.0\.0\.1:9/x: "):
        fetch([(tmp_path / "local").as_uri(), "http://127.0.0.1:9/x"], tmp_path / "a.zip", MD5, timeout=2)


def test_checksums(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    assert has_checksum(tmp_path / "a", f"sha256:{hashlib.sha256(BODY).hexdigest().upper()}")
    assert not has_checksum(tmp_path / "a", "md5:00") and not has_checksum(tmp_path / "b", MD5)
    with pytest.raises(EpisodesError, match="write"):
        has_checksum(tmp_path / "a", "crc:00")


def archive(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_unpacks_one_folder_and_nothing_else(tmp_path):
    path = archive(
        tmp_path / "a.zip", [("in/x/1.txt", "1"), ("in/2.txt", "2"), ("__MACOSX/in/1.txt", "junk")]
    )
    target = unpack_zip(path, "in", tmp_path / "out" / "in", 100, 10)
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*.txt")) == ["2.txt", "x/1.txt"]
    assert [p.name for p in target.parent.iterdir()] == ["in"]
    with pytest.raises(EpisodesError, match="is there already"):
        unpack_zip(path, "in", target, 100, 10)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("in/a", "1"), ("../evil", "2")], "would land outside"),
        ([("in/a", "1"), ("in/../../evil", "2")], "would land outside"),
        ([("/evil", "2")], "would land outside"),
        ([("in\\..\\evil", "2")], "would land outside"),
        ([("C:/evil", "2")], "would land outside"),
        ([(link("in/a"), "/etc/passwd")], "a link or a device"),
        ([("in/a", "x" * 2000)], "1 files of 2000 bytes"),
        ([(f"in/{n}", "") for n in range(20)], "20 files"),
        ([("out/a", "1")], "no folder in"),
    ],
)
def test_archives_that_are_refused_leave_nothing(tmp_path, members, says):
    path = archive(tmp_path / "a.zip", members)
    with pytest.raises(EpisodesError, match=says):
        unpack_zip(path, "in", tmp_path / "out" / "in", 1000, 10)
    assert list((tmp_path / "out").iterdir()) == [] and not (tmp_path / "evil").exists()


def test_a_damaged_archive_leaves_nothing(tmp_path):
    path = archive(tmp_path / "a.zip", [("in/a", "1234567890" * 9)])
    for raw in (path.read_bytes()[:-30], path.read_bytes().replace(b"12345", b"12346")):
        (tmp_path / "b.zip").write_bytes(raw)
        with pytest.raises(EpisodesError, match=r"can't unpack .*b\.zip"):
            unpack_zip(tmp_path / "b.zip", "in", tmp_path / "out" / "in", 1000, 10)
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_inside_what_is_compressed(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("in/a", bytes(range(256)) * 40)
        start = file.infolist()[0].header_offset + 30 + len("in/a")
    raw = bytearray(path.read_bytes())
    for place in range(start + 9, start + 40):
        raw[place] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(EpisodesError, match=r"can't unpack .*a\.zip.*delete it and try again"):
        unpack_zip(path, "in", tmp_path / "out" / "in", 1 << 20, 10)
    assert list((tmp_path / "out").iterdir()) == []
