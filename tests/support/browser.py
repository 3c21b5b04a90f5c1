"""A page in a real browser, and everything that it asked for or complained of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Seen:
    """A page, and what came of it."""

    page: Any  # playwright's
    asked: list[str] = field(default_factory=list)  # URLs
    complaints: list[str] = field(default_factory=list)  # errors and warnings of its console, and exceptions


@contextmanager
def started(path: Path) -> Iterator[Any]:
    """The Chromium at `path`, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(browser: Any, url: str, **context: Any) -> Iterator[Seen]:
    """A new window, as if of another person. `context`: color_scheme, reduced_motion, viewport and so on."""
    window = browser.new_context(**context)
    try:
        window.set_default_timeout(300_000)  # ms: it waits for what it sees
        seen = Seen(window.new_page())
        seen.page.on("request", lambda request: seen.asked.append(request.url))
        seen.page.on("console", lambda said: said.type in ("error", "warning") and seen.complaints.append(said.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.goto(url)
        yield seen
    finally:
        window.close()
