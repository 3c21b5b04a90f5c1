"""What a person sees while the demo runs: one live panel on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

LINE_EVERY_S = 5.0
BARS = "▁▂▃▄▅▆▇█"


class View:
    """Use as a context manager; call `show` a few times a second and `say` for what should stay on the screen."""

    def __init__(self, console: Console, readings: int) -> None:
        self._console, self._readings = console, readings
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

    def show(self, sent: int, predictions: int, recent_ms: tuple[float, float], errors: tuple[float, float, float],
             lag: int, epochs: int, shards: list[str]) -> None:  # fmt: skip
        """Draws the numbers; `shards` is a phrase an actor."""
        now_s = time.monotonic()
        if now_s - self._before[0] >= 0.5:
            self._rates = [*self._rates[-39:], (predictions - self._before[1]) / (now_s - self._before[0])]
            self._before = (now_s, predictions)
        rate = self._rates[-1] if self._rates else 0.0
        mse, persistence, coverage = errors
        skill = 1 - mse / persistence if persistence else math.nan
        if self._live is None:
            if predictions and now_s - self._line_s >= LINE_EVERY_S:
                self._line_s = now_s
                self.say(
                    f"{predictions:,} of {self._readings:,} predictions, {rate:,.0f}/s, p50 {recent_ms[0]:.0f} ms, "
                    f"p99 {recent_ms[1]:.0f} ms, error {skill:+.1%} below persistence, lag {lag:,}"
                )
            return
        grid: Any = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column()
        grid.add_row("progress", ProgressBar(total=self._readings, completed=predictions, width=48))
        grid.add_row("readings in", f"{sent:,}")
        grid.add_row("predictions out", f"{predictions:,}   [bold]{rate:,.0f}/s[/bold]  {_spark(self._rates)}")
        grid.add_row(
            "Kafka to Kafka", f"p50 [bold]{recent_ms[0]:.0f} ms[/bold]   p99 [bold]{recent_ms[1]:.0f} ms[/bold]"
        )
        grid.add_row("error", f"[bold]{skill:.1%}[/bold] below persistence; the 80 % band holds {coverage:.0%}")
        grid.add_row("lag, epochs", f"{lag:,} readings, {epochs:,} transactions")
        for shard in shards:
            grid.add_row("actor", shard)
        self._live.update(Panel(grid, title="streamrnn demo", border_style="cyan", expand=False))


def _spark(values: list[float]) -> str:
    top = max(values, default=0.0) or 1.0
    return "".join(BARS[min(7, int(8 * value / top))] for value in values)
