"""Starts one actor a shard, watches them, replaces the dead and the stalled, and leaves in order.

A spare actor, which has imported everything and owns nothing, waits beside them: most of a restart is imports.
Replacing is safe without asking: an incarnation's first act is to fence the ones before it. So a stalled actor is
replaced first and killed afterwards; should it wake up in between it finds itself fenced and leaves by itself.
With `on_ray`, the only module that imports ray.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from services.fleet.actor import ShardActor
from services.fleet.apart import check_left, unready
from services.fleet.model_controller import ModelController, follow
from services.fleet.ray_head import HeadWatch
from services.fleet.ray_runtime import join_or_start, kill, outcome_of, own_signals, prepare
from services.fleet.shard_handle import BLAMED, GRACE_S, HOPELESS, REFUSED_S, START_S, RetiredActor, ShardHandle
from services.fleet.status import (
    AssignmentResult,
    ExitReason,
    ModelAssignment,
    ShardExit,
    ShardStatus,
    dealt,
    transactional_id,
)
from services.predictor.ports import Fenced
from services.predictor.watched_streams import Points
from services.quality.pipeline import PipelineStats
from services.settings import Settings

STOP_S = 8.0
"""After this an actor that was asked to stop is killed; its open transaction is aborted by the next owner's fence."""

Notify = Callable[..., None]


class Supervisor:
    """The fleet of one pipeline. Call `start`, then `tick` until it raises or you stop, then `stop`."""

    def __init__(self, settings: Settings, partitions: int, notify: Notify, before: int = 0) -> None:
        self.settings, self.partitions, self._notify = settings, partitions, notify
        self._before = before  # partitions that the fleet before this one served; 0: there was none
        shards = min(settings.fleet.shards, partitions)
        self._members = [ShardHandle(shard) for shard in range(shards)]
        self._replaced: list[RetiredActor] = []
        self._actor_class: Any = None
        self._spare: Any = None
        self._server = uuid.uuid4().hex[:12]  # signs the group's offsets
        self._owns_ray = False
        self._following: ModelController | None = None
        self._head = HeadWatch()
        self._points: list[Points] = []  # of streams in the spotlight, not fetched yet
        self._refused: dict[str, float] = {}  # model that a shard cannot run -> monotonic, when to try again

    # ---- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Shuts out every earlier server of this group, whatever number of shards it had, then starts all shards.
        Raises Retriable when the broker does not answer; call it again then.
        """
        prepare()
        import ray

        from services.brokers.kafka_sink import fence_all

        if self.settings.registry is not None and self._following is None:
            self._following = follow(self.settings, len(self._members), self._notify)
        fleet = self.settings.fleet
        if not ray.is_initialized():
            with own_signals():
                join_or_start(
                    fleet.ray_address,
                    fleet.shards * fleet.cpus_per_shard,
                    fleet.shards * fleet.gpus_per_shard,
                    self._notify,
                )
            self._owns_ray = True
            self._head.begin(fleet.ray_address, self._notify)
        if self.settings.delivery == "exactly_once":
            fence_all(self.settings.kafka, [transactional_id(self.settings.group, n) for n in range(self.partitions)])
        # mypy does not know Ray's options for actors. Two threads: the loop, and answers to the supervisor.
        remote: Any = ray.remote
        self._actor_class = remote(
            num_cpus=fleet.cpus_per_shard, num_gpus=fleet.gpus_per_shard, max_restarts=0, max_concurrency=4
        )(ShardActor)
        for member in self._members:
            self._begin(member)

    def tick(self, wait_s: float = 0.25) -> None:
        """Looks after the fleet once. Raises Fenced, Refused or HeadLost when this server must leave."""
        import ray

        self._head.check()
        runs = {member.run: member for member in self._members if member.run is not None}
        if runs:
            ended, _ = ray.wait(list(runs), num_returns=len(runs), timeout=wait_s)
        else:
            ended = []
            time.sleep(wait_s)
        for run in ended:
            self._ended(runs[run], outcome_of(run))
        now_s = time.monotonic()
        self._clear_replaced(now_s)
        self._keep_spare()
        for member in self._members:
            if member.due_s is not None and now_s >= member.due_s:
                self._begin(member)
            elif member.run is not None:
                self._watch(member, now_s)
                self._order(member)
        check_left(self._members)

    def stop(self) -> None:
        """Ends every shard's current epoch, commits it and lets go; within STOP_S, unless the registry hangs."""
        import ray

        self._head.stop()
        if self._following is not None:
            self._following.leave()
        runs = [member.run for member in self._members if member.run is not None]
        for member in self._members:
            if member.actor is not None:
                member.actor.stop.remote()
        if runs:
            _, late = ray.wait(runs, num_returns=len(runs), timeout=self._head.patience_s(STOP_S))
            if late:
                self._notify("killed_at_stop", shards=[m.shard for m in self._members if m.run in late])
        if self._following is not None:
            self._following.stop()
        self._drain_events()
        for actor in [*(m.actor for m in self._members), *(old.actor for old in self._replaced), self._spare]:
            kill(actor)
        self._members, self._replaced, self._spare = [], [], None
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False

    # ---- what others read -------------------------------------------------------------------------------------------

    def statuses(self) -> list[ShardStatus]:
        """The last status of every shard that has answered and is not set aside."""
        return [member.status for member in self._members if member.status is not None and not member.refused]

    def restarts(self) -> dict[int, dict[str, int]]:
        """Shard -> cause -> restarts."""
        return {member.shard: dict(member.restarts) for member in self._members}

    def points(self) -> list[Points]:
        """What came of the streams in the spotlight since the last call."""
        points, self._points = self._points, []
        return points

    def pipeline(self) -> PipelineStats:
        """Numbers that no shard has alone."""
        return PipelineStats() if self._following is None else self._following.stats()

    def unready(self) -> list[str]:
        """Why the fleet is not ready, a sentence each; empty when it is."""
        return unready(self._members, self.settings.fleet.stall_timeout_s / 2)

    def hopeless(self) -> bool:
        """Whether every shard dies again and again, so that nothing is served."""
        lost = [member for member in self._members if member.failures >= HOPELESS]
        return bool(lost) and all(member.refused or member in lost for member in self._members)

    # ---- one member -------------------------------------------------------------------------------------------------

    def _begin(self, member: ShardHandle) -> None:
        member.next_incarnation()
        spare, self._spare = self._spare, None
        member.actor = spare or self._actor()
        member.assignment = self._wanted(member)
        member.run = member.actor.run.remote(member.shard, member.incarnation, member.assignment)
        self._notify(
            "shard_started",
            shard=member.shard,
            incarnation=member.incarnation,
            partitions=dealt(self.partitions, len(self._members), member.shard),
        )

    def _keep_spare(self) -> None:
        """Makes a spare once all shards are ready, so that it takes no time from them. A spare would hold a GPU idle:
        shards that reserve one go without.
        """
        calm = all(member.run is not None and member.ready_s is not None for member in self._members)
        if self._spare is None and self.settings.fleet.gpus_per_shard == 0 and calm:
            self._spare = self._actor()

    def _actor(self) -> Any:
        return self._actor_class.remote(self.settings, self.partitions, self._server, self._before)

    def _watch(self, member: ShardHandle, now_s: float) -> None:
        import ray

        if member.asked is not None:
            answered, _ = ray.wait([member.asked], timeout=0)
            if answered:
                with suppress(ray.exceptions.RayError):
                    self._heard(member, ray.get(member.asked), now_s)
                member.asked = None
        elif now_s - member.asked_s >= 0.5:
            member.asked, member.asked_s = member.actor.status.remote(), now_s
        # Before its first progress it may be waiting for a node, an image or its imports; its death would be seen.
        patience_s = self.settings.fleet.stall_timeout_s if member.beats else START_S
        if now_s - member.moved_s > patience_s:
            self._replace(member, patience_s)

    def _order(self, member: ShardHandle) -> None:
        """Tells a shard that is ready which models it is to run, where that has changed."""
        import ray

        if self._following is None or member.ready_s is None:
            return
        if member.ordered is not None:
            answered, _ = ray.wait([member.ordered], timeout=0)
            if not answered:
                return
            with suppress(ray.exceptions.RayError):
                self._answered(member, ray.get(member.ordered))
            member.ordered = member.ordering = None
        wanted = self._wanted(member)
        if wanted != member.assignment:
            member.ordering, member.ordered = wanted, member.actor.order.remote(wanted)

    def _answered(self, member: ShardHandle, obeyed: AssignmentResult) -> None:
        assert member.ordering is not None
        if obeyed.done:
            member.assignment = member.served = member.ordering
        elif obeyed.model:
            self._refuse(obeyed.model, obeyed.reason)

    def _refuse(self, model: str, reason: str) -> None:
        assert self._following is not None
        self._refused[model] = time.monotonic() + REFUSED_S
        self._following.refused(model, reason)

    def _wanted(self, member: ShardHandle) -> ModelAssignment:
        """What the registry asks for, without what a shard has just refused: the champion that served serves on."""
        if self._following is None:
            return ModelAssignment()
        wanted, now_s = self._following.assignment(member.shard), time.monotonic()
        if now_s < self._refused.get(wanted.champion, 0.0) and member.served is not None:
            return member.served
        return ModelAssignment(wanted.champion) if now_s < self._refused.get(wanted.challenger, 0.0) else wanted

    def _heard(self, member: ShardHandle, status: ShardStatus, now_s: float) -> None:
        if status.incarnation != member.incarnation:
            return  # it has not begun yet
        member.status = status
        self._points += status.points
        for event in status.events:
            self._notify(event.name, shard=status.shard, incarnation=status.incarnation, **event.fields)
        if status.stats.beats != member.beats:
            member.moved_s, member.beats = now_s, status.stats.beats
        if not status.stats.ready and status.stats.restore_done >= member.restored + 0.1:
            member.restored = status.stats.restore_done
            self._notify("restoring", shard=member.shard, done=f"{member.restored:.0%}", rows=status.stats.restored)
        if status.stats.ready and member.ready_s is None:
            member.ready_s, member.refused = now_s, ""
            if not status.stats.challenger:  # it cannot run, or the registry was away: it is ordered again
                member.assignment = ModelAssignment(member.assignment.champion)
            member.served = member.assignment
        if status.failed is not None:
            member.assignment = ModelAssignment(member.assignment.champion)
            self._refuse(*status.failed)
        if status.stats.epochs["kept"] or member.calm():
            member.lasted()
        if self._following is not None:
            self._following.heard(status.rounds)
            self._following.saw({one.shard: one.status.stats for one in self._members if one.status is not None})

    def _replace(self, member: ShardHandle, patience_s: float) -> None:
        self._replaced.append(member.retired(patience_s))
        self._notify("shard_stalled", shard=member.shard, incarnation=member.incarnation, seconds=patience_s)
        self._begin(member)

    def _clear_replaced(self, now_s: float) -> None:
        import ray

        for old in list(self._replaced):
            ready_s = self._members[old.shard].ready_s
            left, _ = ray.wait([old.run], timeout=0)
            if not left and now_s < old.due_s and not (ready_s is not None and now_s > ready_s + GRACE_S):
                continue
            end = outcome_of(old.run).end.value if left else "killed"
            self._notify("replaced_actor_left", shard=old.shard, incarnation=old.incarnation, end=end)
            kill(old.actor)
            self._replaced.remove(old)

    def _ended(self, member: ShardHandle, outcome: ShardExit) -> None:
        member.run = None
        if outcome.end is ExitReason.STOPPED:
            return
        # One that was stalled between its look at the signatures and its fence wakes up later and shuts out its own
        # replacement (ADR 3). If it was another server after all, the next incarnation sees its signature and leaves.
        if outcome.end is ExitReason.FENCED and time.monotonic() > member.doubted_s:
            raise Fenced(
                f"shard {member.shard} was taken over: another server with group {self.settings.group!r} has started. "
                "This one leaves. Give each pipeline its own `pipeline` (or `group`) if both are meant to run."
            )
        member.doubted_s = 0.0 if outcome.end is ExitReason.FENCED else member.doubted_s
        if outcome.end is ExitReason.REFUSED and (
            not outcome.model or member.served is None or outcome.model == member.served.champion
        ):
            member.set_aside(outcome.message)
            self._notify("shard_set_aside", shard=member.shard, incarnation=member.incarnation, retry_s=REFUSED_S,
                         error=outcome.message)  # fmt: skip
            return
        if outcome.end is ExitReason.REFUSED:
            self._notify("model_refused", model=outcome.model, reason=outcome.message)
            self._refuse(outcome.model, outcome.message)
        if outcome.end is ExitReason.CRASHED and (suspect := member.suspect()):
            self._refuse(suspect, f"a shard died {BLAMED + 1} times in a row beside it: {outcome.message[-300:]}")
        wait_s = member.died(outcome.message)
        self._notify("shard_died", shard=member.shard, incarnation=member.incarnation, retry_s=wait_s,
                     error=outcome.message)  # fmt: skip

    def _drain_events(self) -> None:
        import ray

        for member in self._members:
            if member.actor is not None:
                with suppress(ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
                    self._heard(member, ray.get(member.actor.status.remote(), timeout=1.0), time.monotonic())
