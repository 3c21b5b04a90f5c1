"""Whether a pipeline's topics are still those that it was begun with. Imports ports and records.

Kafka gives each topic an id when it is made; one that was deleted and made again has the old name and another id. The
offsets of the group and the states of the changelog are of the topics with the ids that stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.predictor.ports import Refused
from services.records import Role, TopicIds

START_OVER = "streamrnn topics start-over"


def spelled(ids: TopicIds) -> str:
    """As one word, for the metadata of the group's offsets."""
    return ".".join(ids.get(role, "") for role in Role)


def read(word: str) -> TopicIds:
    """What `spelled` wrote; of another word nothing is known."""
    found = word.split(".")
    return {} if len(found) != len(Role) else {role: one for role, one in zip(Role, found, strict=True) if one}


def made_anew(before: TopicIds, now: TopicIds) -> list[Role]:
    """Roles whose topic has another id now; a topic of which one of the two knows nothing is not among them."""
    return [role for role in Role if role in before and role in now and before[role] != now[role]]


def sentence(roles: list[Role], names: Mapping[Role, str]) -> str:
    """What is said of topics that were made anew, by serve and doctor alike."""
    anew = " and ".join(names[role] for role in roles)
    return (
        f"topic {anew} was deleted and made anew since this pipeline last committed: its offsets and states are of the "
        f"topic before it. If that was meant, start over with `{START_OVER}`, which says what it would do; if not, "
        "give the right names under `topics`, and the right cluster under `kafka`"
    )


def check(before: TopicIds, now: TopicIds, names: Mapping[Role, str]) -> None:
    """Raises Refused where a topic was made anew."""
    if roles := made_anew(before, now):
        raise Refused(sentence(roles, names))
