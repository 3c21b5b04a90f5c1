"""Which models run where: follows the registry's aliases, weighs challengers against the champion, acts on verdicts.

    champion alone    nothing to decide
    on trial          a challenger follows some streams in shadow; won, rejected or expired by the contest's verdict
    joining           one that has won follows all streams for a while, then it is promoted
    on watch          for a while after a change the old champion runs in shadow, and may prove better: rolled back

The registry is the truth: this server, another one, and a person with `streamrnn models` all move its aliases by
compare-and-swap, and whoever comes second looks again. What is not there is forgotten with this process: a contest
begins anew, and with it its error rate, but not its deadline. Knows no Ray; its clock is an argument. Not safe for use
by two threads at once.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from services.fleet.status import ModelAssignment
from services.predictor.ports import Refused
from services.predictor.stats import Paired
from services.quality.sequential_test import Contest, ContestOutcome, Round, Terms, Verdict
from services.settings import Settings

if TYPE_CHECKING:
    from rnn.io.card import Card
    from services.registry import Aliases, Registry

HOUR_MS = 3_600_000
BY = "streamrnn serve"

Notify = Callable[..., None]


class Rollout:
    """Of one pipeline. `open`, then `look` every second or so; `assignment` says what a shard is to run."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        shards: int,
        notify: Notify,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.registry, self.rules, self.shards = registry, settings.rollout, shards
        self._model, self._notify, self._clock_ms = settings.model, notify, clock_ms
        # The aliases, and when the champion became it: one value, for assignments are asked for from another thread.
        self._seen: tuple[Aliases | None, int] = (None, 0)
        self.verdicts: dict[str, int] = {}  # outcome -> count, of this server
        self._pair, self._trial = ("", ""), False  # champion and challenger of the contest; whether it is a trial
        self._contest: Contest | None = None
        self._won: tuple[Verdict, int] | None = None  # and when it may take over
        self._problem = ""
        self._refused: dict[str, str] = {}  # model -> why a shard could not take it
        self._offered: tuple[str, str, dict[str, Any]] | None = None  # waits for its turn
        self._unkept: deque[tuple[str, dict[str, Any]]] = deque()  # verdicts that the registry has not got yet

    # ---- what runs where --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Reads the aliases; a registry without a champion gets the model of the settings. Raises Refused."""
        from rnn.io.card import ModelRefused
        from services.registry import Conflict, ModelUnknown, Unreachable, WrongRegistry

        try:
            aliases = self.registry.aliases()
            if aliases.champion is None:
                card = self._first()
                aliases = self.registry.promote(card.model, reason="the first champion", by=BY, seen=aliases)
            self._see(aliases)
        except Conflict:
            self._see(self.registry.aliases())
        except (ModelRefused, ModelUnknown, Unreachable, WrongRegistry) as error:
            raise Refused(f"registry: {error}") from error

    def _first(self) -> Card:
        """Adds the model of the settings. Raises Refused where it cannot be read, whatever the reason, and as `add`."""
        from rnn.io.card import ModelRefused
        from services.fleet.room import unforeseen
        from services.registry import Conflict, Unreachable, WrongRegistry

        try:
            return self.registry.add(self._model, reason="the first champion: `model` of the settings", by=BY)
        except (Conflict, ModelRefused, Refused, Unreachable, WrongRegistry):
            raise
        except Exception as error:
            raise Refused(f"model {self._model}: {unforeseen(error)}") from error

    def assignment(self, shard: int) -> ModelAssignment:
        """What a shard is to run now."""
        aliases, since_ms = self._seen
        assert aliases is not None and aliases.champion is not None
        if aliases.previous is None or not self._watches(aliases, since_ms):
            joins = self._won is not None or not aliases.challenger
            return ModelAssignment(aliases.champion, aliases.challenger or "", 1.0 if joins else self.rules.shadow)
        follows = shard < math.ceil(self.rules.canary * self.shards)
        if follows or self._clock_ms() >= since_ms + self.rules.canary_h * HOUR_MS:
            return ModelAssignment(aliases.champion, aliases.previous)
        return ModelAssignment(aliases.previous, aliases.champion)

    @property
    def aliases(self) -> Aliases | None:
        """As they were last seen; None before `open`."""
        return self._seen[0]

    @property
    def changed_ms(self) -> int:
        """When the champion became it, by the history; 0 for one that was there before."""
        return self._seen[1]

    @property
    def on_watch(self) -> bool:
        """Whether the champion is so new that the one before it goes on in shadow."""
        aliases, since_ms = self._seen
        return aliases is not None and self._watches(aliases, since_ms)

    def _watches(self, aliases: Aliases, since_ms: int) -> bool:
        watched = aliases.previous is not None and aliases.previous != aliases.champion
        return watched and self._clock_ms() < since_ms + self.rules.watch_h * HOUR_MS

    # ---- what is decided --------------------------------------------------------------------------------------------

    def heard(self, rounds: Sequence[Paired]) -> None:
        """Rounds that a shard has closed."""
        if self._contest is None:
            return
        champion, challenger = self._pair
        for one in rounds:
            if (one.champion, one.challenger) == (champion, challenger):
                self._contest.add([one.round])
            elif (one.champion, one.challenger) == (challenger, champion):  # a shard that does not follow yet
                self._contest.add([_turned(one.round)])

    def look(self) -> None:
        """Follows the aliases, and acts where a contest is over. A registry that cannot be reached changes nothing."""
        from rnn.io.card import ModelRefused
        from services.registry import Conflict, Mismatch, ModelUnknown, Pinned, Unreachable, WrongRegistry

        try:
            self._see(self.registry.aliases())
            self._act()
            self._keep_verdicts()
            self._problem = ""
        except Conflict:
            return  # somebody was quicker: what they did is seen next time
        except (Mismatch, ModelRefused, ModelUnknown, Pinned, Unreachable, WrongRegistry) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._notify("registry_problem", error=self._problem)

    @property
    def standing(self) -> Verdict | None:
        """How the contest that is on stands; None: there is none."""
        return None if self._contest is None else self._contest.verdict

    @property
    def on_trial(self) -> bool:
        """Whether a model is judged, or waits for it: one that is trained now would come too early."""
        return self._offered is not None or (self.aliases is not None and self.aliases.challenger is not None)

    def challenge(self, model: str, reason: str, numbers: Mapping[str, Any]) -> None:
        """A model that was trained from what this pipeline reads is to run against the champion, once nobody else
        does: where models come faster than verdicts, none would ever be promoted. The newest one waits.
        """
        self._offered = (model, reason, dict(numbers))
        if self.aliases is not None and self.aliases.challenger is not None:
            self._notify("challenger_waits", model=model, behind=self.aliases.challenger)

    def refused(self, model: str, reason: str) -> None:
        """A shard could not take a model: a challenger is withdrawn, a champion is a person's business. What comes
        late, of one that is withdrawn already, would stand against it when somebody has mended it.
        """
        if self.aliases is not None and self.aliases.challenger == model:
            self._refused[model] = reason

    def _see(self, aliases: Aliases) -> None:
        before = self.aliases
        if before is not None and before.version == aliases.version:
            self._begin(aliases)
            return
        since_ms = self.changed_ms
        if before is None or before.champion != aliases.champion:
            since_ms = self._champion_since_ms(aliases)
            if before is not None:
                self._notify("champion", model=aliases.champion, before=before.champion)
        if before is not None and aliases.challenger and before.challenger != aliases.challenger:
            self._notify("challenger", model=aliases.challenger)
        self._seen = (aliases, since_ms)
        self._begin(aliases)

    def _champion_since_ms(self, aliases: Aliases) -> int:
        """When the history says that it became what it is."""
        since_ms = 0
        for change in reversed(self.registry.history()):
            if change.aliases.champion != aliases.champion:
                break
            since_ms = 0 if change.what == "rolled back" else change.at_ms  # who was there before is not on watch
        return since_ms

    def _begin(self, aliases: Aliases) -> None:
        """Begins the contest that is due, if it is not on already."""
        challenger = aliases.previous if self.on_watch else aliases.challenger
        pair = (aliases.champion or "", challenger or "")
        if pair == self._pair:
            return
        deadline_ms = self._deadline_ms(aliases) if pair[1] else 0
        contest = self._contest
        if self._trial and contest is not None and (not contest.verdict.final or self._won is not None):
            self._judged("undecided", self._pair[1], "another change came before the verdict", contest.verdict)
        self._pair, self._contest, self._won, self._trial = pair, None, None, not self.on_watch
        if pair[1]:
            terms = Terms(
                margin=self.rules.margin,
                alpha=self.rules.error_rate,
                least_readings=min(self.rules.least_readings, self.rules.most_readings),
                most_readings=self.rules.most_readings,
                deadline_ms=deadline_ms,
            )
            self._contest = Contest(terms, self.shards)

    def _deadline_ms(self, aliases: Aliases) -> int:
        """When the contest is over in any case. A trial's time runs from its challenge, so that a server that is
        started again and again does not prolong it without end; a late server gets a quarter of it at least.
        """
        if self.on_watch:
            return self.changed_ms + round(self.rules.watch_h * HOUR_MS)
        begun_ms = now_ms = self._clock_ms()
        for change in reversed(self.registry.history()):
            if change.aliases.challenger != aliases.challenger:
                break
            begun_ms = change.at_ms
        whole_ms = round(self.rules.expires_h * HOUR_MS)
        return max(begun_ms + whole_ms, now_ms + whole_ms // 4)

    def _act(self) -> None:
        aliases, contest = self.aliases, self._contest
        if aliases is not None and aliases.challenger in self._refused:
            self._withdraw_refused(aliases, aliases.challenger)
            return
        if aliases is not None and aliases.challenger is None and self._offered is not None:
            self._offer(aliases, *self._offered)
            return
        if aliases is None or contest is None or not self.rules.automatic or aliases.pinned:
            return
        verdict = contest.add([], self._clock_ms()) if self._won is None else self._won[0]
        if not verdict.final:
            return
        if self.on_watch:
            if verdict.outcome is ContestOutcome.PROMOTED:
                self._roll_back(aliases, verdict)
            return
        model, numbers = self._pair[1], _numbers(verdict)
        if verdict.outcome is ContestOutcome.PROMOTED:
            if not self._joined(verdict):
                return
            self.registry.promote(model, reason=str(verdict), by=BY, numbers=numbers, seen=aliases)
        else:
            self.registry.withdraw(reason=str(verdict), by=BY, numbers=numbers, seen=aliases)
        self._trial = False  # that was its verdict
        self._judged(str(verdict.outcome), model, str(verdict), verdict)
        self._see(self.registry.aliases())

    def _offer(self, aliases: Aliases, model: str, reason: str, numbers: dict[str, Any]) -> None:
        """Makes the model that waits the challenger. While the registry is away, or somebody is quicker, it waits."""
        from rnn.io.card import ModelRefused
        from services.registry import Mismatch, ModelUnknown

        try:
            if model != aliases.champion:
                self._see(self.registry.challenge(model, reason=reason, by=BY, numbers=numbers, seen=aliases))
        except (Mismatch, ModelRefused, ModelUnknown):
            self._offered = None  # it will never do
            raise
        self._offered = None

    def _joined(self, verdict: Verdict) -> bool:
        """Whether a challenger that has won has followed all streams for long enough to know them."""
        now_ms = self._clock_ms()
        if self._won is None:
            wait_h = self.rules.join_h if self.rules.shadow < 1 else 0.0
            self._won = (verdict, now_ms + round(wait_h * HOUR_MS))
            if wait_h:
                self._notify("joining", model=self._pair[1], hours=wait_h, reason=str(verdict))
        return now_ms >= self._won[1]

    def _withdraw_refused(self, aliases: Aliases, model: str) -> None:
        reason = self._refused[model]
        self.registry.withdraw(reason=reason, by=BY, seen=aliases)
        del self._refused[model]
        self._trial = False  # that was its verdict
        self._judged("rejected", model, reason)
        self._see(self.registry.aliases())

    def _roll_back(self, aliases: Aliases, verdict: Verdict) -> None:
        model, numbers = aliases.champion or "", _numbers(verdict)
        reason = f"the model before it does better: {verdict}"
        self.registry.rollback(reason=reason, by=BY, numbers=numbers, seen=aliases)
        self._judged("rolled_back", model, reason, verdict)
        self._see(self.registry.aliases())

    def _judged(self, outcome: str, model: str, reason: str, verdict: Verdict | None = None) -> None:
        """Counts and tells what became of a model; the registry gets it at the end of this look, or of a later one."""
        numbers = {} if verdict is None else _numbers(verdict)
        self.verdicts[outcome] = self.verdicts.get(outcome, 0) + 1
        self._notify("verdict", outcome=outcome, model=model, reason=reason, **numbers)
        kept = {"verdict": "rejected", "rolled_back": True} if outcome == "rolled_back" else {"verdict": outcome}
        self._unkept.append((model, {**kept, "reason": reason, **numbers}))

    def _keep_verdicts(self) -> None:
        from services.registry import ModelUnknown

        while self._unkept:
            with suppress(ModelUnknown):  # somebody has removed it
                self.registry.add_verdict(*self._unkept[0])
            self._unkept.popleft()


def _turned(one: Round) -> Round:
    """The same losses with the two models' parts exchanged."""
    return replace(one, gain=-one.gain, champion_loss=one.challenger_loss, challenger_loss=one.champion_loss)


def _numbers(verdict: Verdict) -> dict[str, Any]:
    return {name: value for name, value in asdict(verdict).items() if name != "outcome"}
