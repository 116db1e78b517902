"""Links that lead out of docs/, on the site as on GitHub. A hook of mkdocs, named in mkdocs.yml.

Pages link to the code and the records they speak of by relative paths (`../metafilm/film/layer.py`), which
GitHub follows. The site gets a page for each file that is so linked, Markdown as it is and anything else as a
listing; a link to a folder leads to a list of its files. Links inside those pages are treated alike, so
nothing leads nowhere. mkdocs reports links to files that don't exist, as it does of any page.

Mermaid graphs are shown as a table: a program to draw them would have to come from elsewhere.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "source"
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")
MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"^```.*?^```[ ]*$", re.DOTALL | re.MULTILINE)
ASSETS = (".svg", ".png", ".jpg", ".html")
LANGUAGES = {".py": "python", ".c": "c", ".h": "c", ".json": "json", ".yaml": "yaml", ".toml": "toml"}
LARGEST = 300_000  # bytes of a file that is shown whole


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of what is linked, and of what that links to."""
    waiting = {
        target
        for file in files.documentation_pages()
        for target in outside(f"docs/{file.src_uri}", file.content_string)
    }
    done: set[str] = set()
    while waiting:
        path = waiting.pop()
        done.add(path)
        if path.endswith(ASSETS):
            files.append(File.generated(config, f"{FOLDER}/{path}", abs_src_path=str(ROOT / path)))
            continue
        text = page_of(path)
        files.append(File.generated(config, page_name(path), content=text))
        waiting |= set(outside(path, text)) - done
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the page's links to the site's pages, and show its graphs."""
    here = page.file.src_uri
    repository = repository_path(here)

    def led(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups()
        path = resolved(repository, target)
        if path is None:
            return match[0]
        to = path.removeprefix("docs/") if is_page(path) else place(path)
        return f"{before}{posixpath.relpath(to, posixpath.dirname(here) or '.')}{anchor or ''}{after}"

    return outside_fences(MERMAID.sub(table, markdown), lambda text: LINK.sub(led, text))


def outside(page: str, text: str) -> Iterator[str]:
    """What a file of the repository links to outside of docs/, as paths in the repository."""
    for _, target, _, _ in LINK.findall(FENCED.sub("", text)):
        path = resolved(page, target)
        if path is not None and not is_page(path):
            yield path


def is_page(path: str) -> bool:
    """Whether mkdocs has a file of the repository without us: pages and pictures, not the examples' code."""
    return path.startswith("docs/") and not path.startswith("docs/examples/")


def resolved(page: str, target: str) -> str | None:
    """A link's target as a path in the repository; None for addresses and for what isn't there."""
    if ":" in target:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def place(path: str) -> str:
    """Where the site keeps a file or folder of the repository."""
    return f"{FOLDER}/{path}" if path.endswith(ASSETS) else page_name(path)


def page_name(path: str) -> str:
    """The page of a file or folder of the repository."""
    if (ROOT / path).is_dir():
        return f"{FOLDER}/{path}/folder.md"
    return f"{FOLDER}/{path}" if path.endswith(".md") else f"{FOLDER}/{path}.md"


def repository_path(page: str) -> str:
    """The reverse: which file of the repository a page shows."""
    if not page.startswith(f"{FOLDER}/"):
        return f"docs/{page}"
    path = page.removeprefix(f"{FOLDER}/")
    return path if (ROOT / path).exists() or path.endswith("/folder.md") else path.removesuffix(".md")


def page_of(path: str) -> str:
    """The text of the page of a file or folder."""
    at = ROOT / path
    if at.is_dir():
        names = sorted(item.name for item in at.iterdir() if not item.name.startswith((".", "__pycache__")))
        return f"# {path}/\n\n" + "\n".join(f"- `{name}`" for name in names) + "\n"
    if at.stat().st_size > LARGEST:
        return f"# {path}\n\n{at.stat().st_size:,} bytes, in the repository.\n"
    text = at.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        return notebook(text)
    return f"# {path}\n\n~~~~~~{LANGUAGES.get(at.suffix, 'text')}\n{text.rstrip()}\n~~~~~~\n"


def notebook(text: str) -> str:
    """A notebook's cells as Markdown, without outputs."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(words if kind == "markdown" else f"```python\n{words}\n```" for kind, words in cells)


def table(match: re.Match[str]) -> str:
    """A graph's arrows, `a --> b`, as a table: who leans on whom."""
    below: dict[str, list[str]] = {}
    for who, what in re.findall(r"(\S+) --> (\S+)", match[1]):
        below.setdefault(who, []).append(f"`{what}`")
    rows = [f"| `{who}` | {', '.join(others)} |" for who, others in below.items()]
    return "\n".join(["| room | imports from |", "|---|---|", *rows])


def outside_fences(text: str, change: Any) -> str:
    """The text with everything but its fenced code changed."""
    parts, end = [], 0
    for fence in re.finditer(r"^(```|~~~~~~).*?^\1[ ]*$", text, re.DOTALL | re.MULTILINE):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])
