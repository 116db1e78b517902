"""The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer: `python scripts/sanitise.py`.

Builds the kernels anew with both sanitisers, into a cache that is thrown away, and runs the tests in a
process that loads AddressSanitizer's runtime first, so that PyTorch's memory has its guards too. Needs gcc on
Linux, and the test extras. More arguments go to pytest. The exit code is pytest's; the first finding ends it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TESTS = "tests/metafilm/engine/test_native.py"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
# libstdc++ as well: AddressSanitizer looks for its exceptions when it starts, before Python has loaded it.
RUNTIMES = ("libasan.so", "libstdc++.so.6")
PROGRAM = """
import sys
import pytest
from metafilm.engine import native
found = native.status()
if not found.on:
    sys.exit(f"the kernels are off: {found.why}")
print(f"kernels with sanitisers: {found.file}", flush=True)
sys.exit(pytest.main(sys.argv[1:]))
"""


def runtimes(compiler: str) -> list[str]:
    """The shared libraries to load first, where this compiler has them."""
    found = []
    for name in RUNTIMES:
        command = [compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():  # the bare name: it has none
            sys.exit(f"{compiler} has no {name}; install its sanitisers")
        found.append(str(Path(path).resolve()))
    return found


def main(arguments: list[str]) -> int:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        sys.exit("no C compiler: none of cc, gcc and clang is on the PATH")
    with tempfile.TemporaryDirectory(prefix="metafilm-sanitise-") as cache:
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(runtimes(compiler)),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python and PyTorch leave at exit what they hold
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "METAFILM_NATIVE": "1",
            "METAFILM_NATIVE_FLAGS": FLAGS,
            "XDG_CACHE_HOME": cache,
            "PYTHONPATH": str(HERE),
        }
        command = [sys.executable, "-c", PROGRAM, "-q", TESTS, *arguments]
        return subprocess.run(command, cwd=HERE, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
