"""Prints docs/asyncapi.yaml."""

import sys

from services.wire import document, text

sys.stdout.write(text(document()))
