"""What a command writes and prints: files refused before the work, names of any bytes, errors in one line."""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from metafilm.errors import MetafilmError
from metafilm.storage.atomic import atomic_write, require_room
from metafilm.storage.run import RunDirectory

ADVICE = {
    errno.ENOSPC: "make room there and give the same command again, or choose another place",
    errno.EDQUOT: "make room there and give the same command again, or choose another place",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "it can only be read; choose another place",
    errno.ENOENT: "check the name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "too many files are open; raise the limit with ulimit -n",
}
"""What to do about an error of the system."""


def require_writable(file: Path | None, name: str = "out.json") -> None:
    """Raise MetafilmError unless the output file can be written; none and - (standard output) always can.
    name: for the error where it is a folder."""
    if file is None or to_standard_output(file):
        return
    if file.is_dir():
        raise MetafilmError(f"can't write {file}: it is a folder; name a file in it, such as {file / name}")
    if not file.parent.is_dir():
        raise MetafilmError(f"can't write {file}: there is no folder {file.parent}; make it first")
    if file.exists() and not file.is_file():  # a device or pipe would be replaced by the file
        raise MetafilmError(f"can't write {file}: it is no plain file; use - for standard output")
    try:
        require_room(file.parent)
    except OSError as error:
        raise MetafilmError(f"can't write {file}: {error.strerror}; choose another place") from error


def require_file(file: Path | None) -> None:
    """As :func:`require_writable`, for what is a file and nothing to print."""
    if file is not None and to_standard_output(file):
        raise MetafilmError("a page can't be printed: name a file, such as report.html")
    require_writable(file, "report.html")


def require_task_file(file: Path | None) -> None:
    """As :func:`require_writable`, for a task's .safetensors file."""
    require_writable(file, "task.safetensors")
    if file is not None and file.suffix != ".safetensors":
        raise MetafilmError(
            f"a task is written as a .safetensors file, not as {file}; such as task.safetensors"
        )


def require_apart(*files: Path | None) -> None:
    """Raise MetafilmError where one file is to be written twice."""
    given = [file.absolute() for file in files if file is not None and not to_standard_output(file)]
    for file in given:
        if given.count(file) > 1:
            raise MetafilmError(f"{file} is named for two things; name two files")


def require_kept(read: Sequence[str | None], *written: Path | None) -> None:
    """Raise MetafilmError where what is written would take the place of what is read: weights named in
    `read`, by their file or the run directory that holds them, or what that run needs to go on."""
    kept: list[Path] = []
    for path in (Path(name) for name in read if name is not None):
        run = RunDirectory(path)
        kept += [path, run.config_file, *run.made]
    for file in (file for file in written if file is not None and not to_standard_output(file)):
        if file.is_file() and any(other.is_file() and file.samefile(other) for other in kept):
            raise MetafilmError(f"can't write {file}: it is what is read here; name another file")


def tell(text: str, file: Path | None, show: Callable[[], object], *writes: Callable[[], object]) -> None:
    """Print a result: its JSON where `file` is -, else what `show` does. Then write it to the file named, and
    whatever else there is to write: after what is printed, which a full disk can't take, and also where
    nobody reads that to its end."""
    kept = None if to_standard_output(file) else file
    with ExitStack() as after:
        for write in reversed(writes):
            after.callback(write)
        if kept is not None:
            after.callback(atomic_write, kept, text.encode())
        if to_standard_output(file):
            print(text, end="")
        else:
            show()


def to_standard_output(file: Path | None) -> bool:
    return str(file) == "-"


@contextmanager
def printable() -> Iterator[None]:
    """File names that are no text of the terminal's encoding are shown with backslashes for the time being,
    not refused."""
    with ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            change = getattr(stream, "reconfigure", None)
            if change is not None:
                stack.callback(change, errors=stream.errors)
                change(errors="backslashreplace")
        yield


def report(error: Exception) -> int:
    """Say an error of the caller's or of the system's in one message on standard error; the exit code."""
    if isinstance(error, BrokenPipeError) and error.filename is None:  # as of `metafilm data list | head -1`
        _drop_output()
        return 0
    from rich.console import Console

    said = in_words(error) if isinstance(error, OSError) else str(error)
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {said}", style="red", markup=False)
    if isinstance(error, OSError) and error.filename is None:
        _drop_output()
    return 2


def in_words(error: OSError) -> str:
    """The file, what the system says of it, and what to do."""
    where = error.filename or "standard output, or a file that the system does not name"
    advice = ADVICE.get(error.errno or 0, "check the place, or choose another")
    return f"{where}: {error.strerror or error}; {advice}"


def _drop_output() -> None:
    """Nobody takes standard output: what is left of it goes nowhere, lest Python complain on its way out."""
    with suppress(OSError, ValueError):  # a stream without a file of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def require_counts(**limits: tuple[int | None, int]) -> None:
    """Raise MetafilmError listing every option below its least value."""
    low = [
        f"--{name} must be at least {least}, is {value}"
        for name, (value, least) in limits.items()
        if value is not None and value < least
    ]
    if low:
        raise MetafilmError("; ".join(low))
