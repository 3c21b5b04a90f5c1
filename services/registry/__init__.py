"""Where models are kept, and which of them serves: `Registry`. Imports rnn's cards; fsspec and torch when needed.

registry = Registry("s3://bucket/pumps")          # or a folder
card = registry.add(Path("model"), reason="nightly training", by="train-17")
seen = registry.aliases()
registry.challenge(card.model, reason="trained on last week", by="train-17", seen=seen)
"""

from services.registry.aliases import Aliases, Change
from services.registry.compatibility import compatible
from services.registry.model_store import VERDICTS, Added, ModelEntry
from services.registry.problems import Conflict, Mismatch, ModelUnknown, Pinned, Unreachable, WrongRegistry
from services.registry.registry import Registry

__all__ = ["VERDICTS", "Added", "Aliases", "Change", "Conflict", "Mismatch", "ModelEntry", "ModelUnknown", "Pinned",
           "Registry", "Unreachable", "WrongRegistry", "compatible"]  # fmt: skip
