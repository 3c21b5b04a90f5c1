"""What a person sees while a demo runs: one live panel on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

LINE_EVERY_S = 5.0
BARS = "▁▂▃▄▅▆▇█"


class View:
    """Use as a context manager; call `show` a few times a second and `say` for what should stay on the screen."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._line_s = 0.0
        self._began_s = time.monotonic()
        self._before: tuple[float, int] = (self._began_s, 0)
        self._rates: list[float] = []

    def __enter__(self) -> View:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._live.__exit__(kind, error, tb)

    def say(self, text: str) -> None:
        """A line that stays, with the seconds since the start."""
        since_s = time.monotonic() - self._began_s
        self._console.print(f"[dim]{since_s:6.1f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    def rate(self, predictions: int) -> float:
        """Predictions a second, of late. Call it each time before `show`."""
        now_s = time.monotonic()
        if now_s - self._before[0] >= 0.5:
            self._rates = [*self._rates[-39:], (predictions - self._before[1]) / (now_s - self._before[0])]
            self._before = (now_s, predictions)
        return self._rates[-1] if self._rates else 0.0

    @property
    def rates(self) -> str:
        """The rates of late as a row of bars."""
        top = max(self._rates, default=0.0) or 1.0
        return "".join(BARS[min(7, int(8 * value / top))] for value in self._rates)

    def show(self, rows: Sequence[tuple[str, Any]], line: str) -> None:
        """On a terminal draws the rows, each a name and what there is to it; elsewhere says the line, now and then."""
        if self._live is None:
            now_s = time.monotonic()
            if line and now_s - self._line_s >= LINE_EVERY_S:
                self._line_s = now_s
                self.say(line)
            return
        grid: Any = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column()
        for row in rows:
            grid.add_row(*row)
        self._live.update(Panel(grid, title=self._title, border_style="cyan", expand=False))


def progress_bar(done: int, of: int) -> ProgressBar:
    """For a row of `show`."""
    return ProgressBar(total=of, completed=done, width=48)


def while_training(console: Console, what: str, train: Callable[[Callable[[str, float], None]], Any]) -> Any:
    """What `train` returns; a bar shows what it says meanwhile."""
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        return train(lambda text, share: bar.update(task, description=text, completed=share))
