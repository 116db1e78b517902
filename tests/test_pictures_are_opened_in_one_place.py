"""Pictures are opened by `episodes.files.images.open_picture` alone: it names the decoders Pillow may use."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_image_open_stands_in_one_file_with_its_formats():
    found = {}
    for folder in ("episodes", "metafilm", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            calls = re.findall(r"Image\.open\(.*\)", path.read_text())
            found |= {path.relative_to(ROOT).as_posix(): calls} if calls else {}
    assert found == {"episodes/files/images.py": ["Image.open(path, formats=FORMATS)"]}
