"""The page for people and its parts: files of this folder, and the live document. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from urllib.parse import parse_qs

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
LIVE = "/live.json"


class Page:
    """Answers the paths of the page. `document(after)` is what it asks for once a second, as JSON."""

    def __init__(self, document: Callable[[str], bytes]) -> None:
        self._document = document
        folder = resources.files("services.telemetry")
        self._files = {path: (kind, (folder / name).read_bytes()) for path, (name, kind) in FILES.items()}

    def answer(self, path: str, query: str) -> tuple[str, bytes] | None:
        """Content type and body; None: it is no path of the page."""
        if path == LIVE:
            return "application/json", self._document(parse_qs(query).get("after", [""])[0])
        return self._files.get(path)
