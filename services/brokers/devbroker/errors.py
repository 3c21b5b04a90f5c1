"""What can go wrong with the development broker, named by its remedy. Imports nothing."""

from __future__ import annotations


class DevBrokerError(Exception):
    """The development broker cannot do what was asked; the message says what to do."""


class JarsMissing(DevBrokerError):
    """Kafka's jars could not be fetched. Remedy: network, or a filled cache folder."""


class JarDamaged(DevBrokerError):
    """A jar is not the one that was tested. Remedy: delete the named file."""


class StartFailed(DevBrokerError):
    """The broker did not come up. Remedy: what the message quotes of its log."""


class EndedWhileStarting(StartFailed):
    """The broker's process has ended by itself before it served anyone."""
