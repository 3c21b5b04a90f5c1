"""The one typed tree of settings, and the only reader of files and environment. Imports pydantic-settings and PyYAML.

settings = load("streamrnn.yaml", ["log.level=debug"])
settings.epoch.max_readings
"""

from services.settings.listing import listed, schema
from services.settings.problems import WrongSettings
from services.settings.sources import Loaded, load, read
from services.settings.tree import ENV_PREFIX, Settings

__all__ = ["ENV_PREFIX", "Loaded", "Settings", "WrongSettings", "listed", "load", "read", "schema"]
