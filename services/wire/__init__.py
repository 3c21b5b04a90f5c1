"""The pipeline's topics as one AsyncAPI document, made of the models and codecs that serve them. May import codecs,
records, fleet's list of events and pydantic; PyYAML to write with.
"""

from services.wire.asyncapi import document, text

__all__ = ["document", "text"]
