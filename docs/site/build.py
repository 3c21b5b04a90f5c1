"""The documents as a site that works offline: `make site`, or

    python docs/site/build.py build/site

What docs/ holds becomes pages; what they link to outside of docs/ (examples, sources) becomes pages as well, so that
every link leads somewhere within the site. Zensical builds it with warnings as errors; then every link, anchor, picture
and script of what was built is looked at, and nothing may come from elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("zensical.toml")
LARGEST_SOURCE_BYTES = 60_000
"""A larger file is there to be downloaded, not to be read as a page."""
PICTURES = (".png", ".svg", ".jpg")
LINK = re.compile(r"(`[^`\n]*`)|\]\(([^)\s]+)\)")


class WrongSite(Exception):
    """The site would not be right. The message has a line for each thing to change."""


# ---- pages ----------------------------------------------------------------------------------------------------------


def place(path: Path) -> Path:
    """Where a file of the repository stands among the pages."""
    if path.suffix != ".md" and not _is_asset(path):
        return Path("source") / path.with_name(path.name + ".md")
    at = path.relative_to("docs") if path.is_relative_to("docs") else path
    if path.name == "README.md" and len(list((ROOT / path).parent.glob("*/README.md"))) == 0 and at == path:
        return at.parent.with_name(at.parent.name + ".md")  # else the builder takes it for the first page of a section
    return at


def _is_asset(path: Path) -> bool:
    return path.suffix in PICTURES or (ROOT / path).stat().st_size > LARGEST_SOURCE_BYTES


def _origin(name: str) -> Path:
    """The file that the navigation means by `name`."""
    return Path("docs", name) if (ROOT / "docs" / name).exists() else Path(name)


def gather(pages: Path, nav: Any) -> None:
    """Writes every page below `pages`: docs/, what `nav` names, and what those link to."""
    begin = [path for path in (ROOT / "docs").rglob("*.md") if "site" not in path.relative_to(ROOT / "docs").parts[:1]]
    begin += [ROOT / _origin(name) for name in _named(nav)]
    begin += (ROOT / "examples").glob("*/README.md")
    waiting, seen = [path.relative_to(ROOT) for path in begin], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        to = pages / place(path)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text, links = _rewritten(path)
            to.write_text(text)
            waiting += links
        elif _is_asset(path):
            shutil.copyfile(ROOT / path, to)
        else:
            language = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".json": "json"}.get(path.suffix, "text")
            fence = "`" * 6
            to.write_text(f"# {path}\n\n{fence}{language}\n{(ROOT / path).read_text()}\n{fence}\n")


def _rewritten(path: Path) -> tuple[str, list[Path]]:
    """A page's text with its links as they are within the site, and the files that it links to."""
    links: list[Path] = []
    wrong: list[str] = []

    def follow(found: re.Match[str]) -> str:
        if found[1] or re.match(r"[a-z]+:|#", found[2]):
            return found[0]
        name, mark, anchor = found[2].partition("#")
        there = (ROOT / path).parent.joinpath(unquote(name)).resolve()
        if there.is_dir():
            there = _of_folder(there)
        if not there.is_file() or not there.is_relative_to(ROOT):
            wrong.append(f"{path}: {found[2]} leads nowhere")
            return found[0]
        links.append(target := there.relative_to(ROOT))
        return f"]({os.path.relpath(place(target), place(path).parent)}{mark}{anchor})"

    lines, fenced = [], False
    for line in (ROOT / path).read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            line = re.sub(r"^(\s*```\w+) .*", r"\1", line)  # words for tests stand behind the language
        lines.append(line if fenced else LINK.sub(follow, line))
    if wrong:
        raise WrongSite("\n".join(wrong))
    return "\n".join(lines) + "\n", links


def _of_folder(folder: Path) -> Path:
    """The page that stands for a folder: what it says of itself, else its first page."""
    pages = sorted(folder.glob("*.md"))
    return next((page for page in pages if page.name in ("README.md", "index.md")), pages[0] if pages else folder)


# ---- navigation -----------------------------------------------------------------------------------------------------


def _named(nav: Any) -> Iterator[str]:
    """Files that the navigation names, folders as `FOLDER/*` left out."""
    for entry in nav:
        below = next(iter(entry.values())) if isinstance(entry, Mapping) else entry
        if not isinstance(below, str):
            yield from _named(below)
        elif not below.endswith("/*"):
            yield below


def expanded(nav: Any, pages: Path) -> Iterator[Any]:
    """The navigation with a line for each page of a folder."""
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("/*"):
            folder = pages / entry.removesuffix("/*")
            for page in sorted(folder.rglob("*.md")):
                if page != folder / "README.md":
                    yield {_title(page): str(page.relative_to(pages))}
        elif isinstance(entry, Mapping):
            (title, below), = entry.items()  # fmt: skip
            yield {title: str(place(_origin(below))) if isinstance(below, str) else list(expanded(below, pages))}
        else:
            yield str(place(_origin(entry)))


def _title(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text(), re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem


def unreachable(nav: Any, pages: Path) -> list[str]:
    """Pages that the navigation does not lead to, sources apart, and pages that it names in vain."""
    named = set(_named(nav))
    there = {str(page.relative_to(pages)) for page in pages.rglob("*.md")}
    lost = sorted(page for page in there - named if not page.startswith("source/"))
    return [f"{page}: not in the navigation of docs/site/zensical.toml" for page in lost] + [
        f"docs/site/zensical.toml: there is no page {page}" for page in sorted(named - there)
    ]


# ---- what was built -------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []  # where a reader may go
        self.loads: list[str] = []  # what a browser fetches by itself
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "modulepreload"):
            self.loads.append(given.get("href", ""))
        elif given.get("src"):
            self.loads.append(given["src"])


def problems(site: Path) -> list[str]:
    """Links and anchors that lead nowhere, and what would be fetched from elsewhere."""
    pages = {page: _Page(page.read_text()) for page in sorted(site.rglob("*.html"))}
    found = []
    for page, content in pages.items():
        where = page.relative_to(site)
        for target in content.loads + content.links:
            if target.startswith("data:"):
                continue
            if re.match(r"[a-z]+:|//", target):
                if target in content.loads:
                    found.append(f"{where}: {target} is fetched from elsewhere")
                continue
            name, _, anchor = target.partition("#")
            there = page if not name else (site if name[0] == "/" else page.parent).joinpath(unquote(name).lstrip("/"))
            there = Path(os.path.normpath(there / "index.html" if there.is_dir() else there))
            if not there.is_file():
                found.append(f"{where}: {target} leads nowhere")
            elif anchor and there in pages and unquote(anchor) not in pages[there].anchors:
                found.append(f"{where}: {target} names no place on that page")
    return found


def build(site: Path) -> int:
    """Builds into the folder `site`, which is replaced; returns the number of pages. Raises WrongSite."""
    project = tomllib.loads(CONFIG.read_text())["project"]
    with tempfile.TemporaryDirectory() as workshop:
        pages = Path(workshop, "docs")
        gather(pages, project["nav"])
        project["nav"] = list(expanded(project["nav"], pages))
        if wrong := unreachable(project["nav"], pages):
            raise WrongSite("\n".join(wrong))
        Path(workshop, "mkdocs.yml").write_text(json.dumps(project))  # JSON is YAML, which Zensical reads too
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
        done = subprocess.run(command, cwd=workshop, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WrongSite((done.stdout + done.stderr).strip())
        built = Path(workshop, "site")
        if wrong := problems(built):
            raise WrongSite("\n".join(wrong))
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(built, site)
        return len(list(pages.rglob("*.md")))


if __name__ == "__main__":
    to = Path(sys.argv[1] if len(sys.argv) > 1 else "build/site")
    try:
        print(f"{to}: {build(to)} pages; look at them with: python -m http.server --directory {to}")
    except WrongSite as error:
        print(error, file=sys.stderr)
        sys.exit(1)
