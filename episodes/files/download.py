"""Files from the network: checksummed, resumable, from several mirrors, and archives unpacked with care.

Not pooch: it takes one address a file, starts again after a broken connection and has no limit on the bytes.
"""

import contextlib
import hashlib
import http.client
import lzma
import os
import re
import secrets
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from episodes.errors import EpisodesError
from episodes.progress import Progress

_CHUNK = 1 << 16
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)  # what zipfile raises, or its decompressors, on an archive that is no good
_ATTEMPTS = 3  # per mirror, each resuming where the last one stopped


def fetch(
    urls: Sequence[str], path: Path, checksum: str, *, max_bytes: int = 1 << 31, timeout: float = 20.0
) -> Path:
    """Download one file from the first mirror that gives it, and return `path`.

    urls: http or https, tried in order. checksum: "md5:..." or "sha256:..." of the whole file. A file already
    there with this checksum is left alone. What arrived before a broken connection lies in `.NAME.part`
    beside it and is resumed, by a later call too, if the server supports ranges. timeout: seconds without a
    byte. Raises EpisodesError listing what went wrong with each mirror.
    """
    path = Path(path)
    if has_checksum(path, checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with only_one(path.with_name(f".{path.name}.lock")):
        if has_checksum(path, checksum):  # by whoever held the lock
            return path
        problems = []
        for url in urls:
            try:
                _from_mirror(url, part, checksum, max_bytes, timeout)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problems.append(f"{url}: {error}")
                continue
            os.replace(part, path)
            return path
    listed = "\n  ".join(problems) or "no mirrors were given"
    raise EpisodesError(
        f"couldn't download {path.name}:\n  {listed}\nTry again later (it resumes), or put the file at "
        f"{path} yourself"
    )


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether the file is there and has this checksum, "md5:..." or "sha256:..."."""
    kind, _, expected = checksum.partition(":")
    if kind not in ("md5", "sha256") or not expected:
        raise EpisodesError(f'checksum {checksum!r}: write "md5:..." or "sha256:..."')
    return path.is_file() and _digest(path, kind) == expected.lower()


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _from_mirror(url: str, part: Path, checksum: str, max_bytes: int, timeout: float) -> None:
    """Complete `part` from one mirror and check it. Leaves a partial file for the next attempt, never a wrong
    one."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("only http and https are fetched")
    resumed = part.exists() and part.stat().st_size > 0
    error: Exception | None = None
    for _ in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, max_bytes, timeout)
            break
        except urllib.error.HTTPError as problem:
            problem.close()
            if problem.code == 416:  # our part is as long as the file, or longer: the checksum below decides
                break
            raise
        except (OSError, http.client.HTTPException) as problem:
            error = problem
            if not part.exists() or part.stat().st_size == before:
                raise  # nothing came: whoever has no network shouldn't wait for every attempt
            resumed = True
    else:
        raise error or OSError("no attempt was made")
    if has_checksum(part, checksum):
        return
    kind = checksum.partition(":")[0]
    found = _digest(part, kind)
    part.unlink()
    if resumed:  # the beginning may have come from another file: once more, whole
        _receive(url, part, max_bytes, timeout)
        if has_checksum(part, checksum):
            return
        found = _digest(part, kind)
        part.unlink()
    raise ValueError(f"what came has checksum {kind}:{found}, expected {checksum}")


def _receive(url: str, part: Path, max_bytes: int, timeout: float) -> None:
    """Append to `part` what is missing, or write it anew if the server doesn't resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "metafilm", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if "text/html" in response.headers.get("Content-Type", "").lower():
            raise ValueError("a web page came instead of the file: the address has moved or asks for a login")
        start = 0
        if have and response.status == 206:
            span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            start = int(span[1]) if span else -1
            if start != have:
                part.unlink()
                raise OSError(f"asked to resume at byte {have}, the server resumed at {start}")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        if total is not None and total > max_bytes:
            raise ValueError(f"{total} bytes are announced, more than the {max_bytes} expected at most")
        chunk = response.read(_CHUNK)
        # Looked at before the file is opened, which would empty it: what is there may be resumed elsewhere.
        if start == 0 and chunk.lstrip()[:1] == b"<":
            raise ValueError("a web page came instead of the file: the address has moved or asks for a login")
        size = start
        with (
            part.open("ab" if start else "wb") as file,
            Progress(f"downloading {part.name[1:-5]}", total) as progress,
        ):
            progress.advance(start)
            while chunk and (size := size + len(chunk)) <= max_bytes:
                file.write(chunk)
                progress.advance(len(chunk))
                chunk = response.read(_CHUNK)
            file.flush()
            os.fsync(file.fileno())
    if size > max_bytes:
        part.unlink()
        raise ValueError(f"more than the {max_bytes} bytes expected at most came")
    if total is not None and size < total:
        raise OSError(f"the connection ended after {size} of {total} bytes")


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """One process at a time; the system lets go of the lock when a process dies. Nothing where there is no
    flock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def unpack_zip(archive: Path, folder: str, target: Path, max_bytes: int, max_members: int) -> Path:
    """Unpack the archive's top folder `folder` so that it is `target`, all of it or nothing.

    Checked before anything is written: names (no absolute ones, no "..", no backslashes or drives), no links,
    at most `max_members` files of `max_bytes` in all. It is unpacked beside `target` and renamed. Raises
    EpisodesError when the archive is damaged or breaks one of these, or `target` exists.
    """
    if target.exists():
        raise EpisodesError(f"{target} is there already: move it away to unpack {archive.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if _wanted(member, folder)]
            if len(members) > max_members or sum(member.file_size for member in members) > max_bytes:
                raise EpisodesError(
                    f"{archive} holds {len(members)} files of "
                    f"{sum(member.file_size for member in members)} bytes, "
                    f"expected at most {max_members} and {max_bytes}: it is not the archive it should be"
                )
            with Progress(f"unpacking {archive.name}", len(members)) as progress:
                for member in members:
                    # zipfile stops at the size announced and checks the CRC, so the sum above holds.
                    opened.extract(member, work)
                    progress.advance()
        if not (work / folder).is_dir():
            raise EpisodesError(f"{archive} has no folder {folder}: it is not the archive it should be")
        os.rename(work / folder, target)
    except _DAMAGE as error:
        if isinstance(error, EpisodesError):
            raise
        raise EpisodesError(f"can't unpack {archive}: {error}; delete it and try again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _wanted(member: zipfile.ZipInfo, folder: str) -> bool:
    """Whether to unpack a member: no for folders and what a Mac adds; EpisodesError for anything that isn't
    plain."""
    name = member.filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ":" in name or ".." in parts or "\0" in name:
        raise EpisodesError(
            f"the archive holds {name!r}, which would land outside its folder: it is not to be trusted"
        )
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise EpisodesError(
            f"the archive holds {name!r}, which is a link or a device: it is not to be trusted"
        )
    return not member.is_dir() and bool(parts) and parts[0] == folder
