"""What a person sees while a network trains: a bar, and lines for what is no pass."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnn.train.course import Pass
    from services.trainer.search import Tried
    from services.trainer.training_run import Callbacks


class TrainingBar:
    """A bar that goes when it is left; the lines stay."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._console = console
        self._task = self._progress.add_task("", total=1.0)
        self._ranks: set[int] = set()

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def passed(self, one: Pass) -> None:
        """Moves the bar."""
        right = "" if one.accuracy is None else f", {one.accuracy:.1%} right"
        said = f"pass {one.number} of {one.passes}, loss {one.validation_loss:.4g}{right}"
        self._progress.update(self._task, description=said, completed=one.number / one.passes)

    def tried(self, one: Tried) -> None:
        """A line of the search's table."""
        shape = one.candidate
        name = f"{shape.cell} {shape.layers} x {shape.hidden}, rate {shape.learning_rate:.3g}"
        loss = "diverged" if one.loss is None else f"loss {one.loss:.5g}"
        usual = "  (default)" if one.default else ""
        self.say(f"round {one.round}  {name:<30} {one.updates:>6} updates  {loss:<14} {one.seconds:6.1f} s{usual}")

    def worker(self, event: dict[str, Any]) -> None:
        """A line where one that died has come again."""
        if event["resumed"] or event["rank"] in self._ranks:
            self.say(f"worker {event['rank']} was started anew, and goes on from the last checkpoint")
        self._ranks.add(event["rank"])

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def ears(self) -> Callbacks:
        """All of it, as `services.trainer.training_run` wants it."""
        from services.trainer.training_run import Callbacks

        return Callbacks(self.passed, self.tried, self.worker, noted=lambda note: self.say(f"note: {note}"))
