"""`streamrnn doctor`: looks at a machine, its Ray, Kafka, registry and settings before a pipeline is served, or when it
is not. Every line says what was found and, where something is wrong, the fix.

Nothing is changed anywhere: nothing is written, created, committed or joined. May import brokers, fleet, registry,
settings and the ports' errors; nobody but the command line imports this room.
"""

from services.doctor.examination import examined
from services.doctor.lines import CheckResult, Level, Target

__all__ = ["CheckResult", "Level", "Target", "examined"]
