"""What can go wrong with a registry, each error named by what it means. Imports the standard library only."""

from __future__ import annotations


class ModelUnknown(Exception):
    """The registry holds no such model. The message names the registry and what it holds instead."""


class Conflict(Exception):
    """Somebody was quicker: the aliases are no longer those that were seen. Remedy: look again, then decide again."""


class Pinned(Exception):
    """The champion is pinned. Remedy: `streamrnn models unpin`, by a person who knows why it was pinned."""


class Mismatch(Exception):
    """The model answers another question than the champion, or reads something else. The message names the field."""


class WrongRegistry(Exception):
    """The place is no registry, or one that this release must not touch. The message names the file and the fix."""


class Unreachable(Exception):
    """The place could not be read or written just now. Remedy: the message's; then try again, nothing is half done."""
