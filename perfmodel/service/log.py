"""What is noted of each request while a service is replayed: plain lists, quickest to write to one by one."""

import math

from perfmodel.service.records import Requests


class Level:
    """How many are somewhere, summed over time as they come and go: what Little's law is held against."""

    __slots__ = ("area", "last", "number")

    def __init__(self) -> None:
        """Begin with none."""
        self.number, self.area, self.last = 0, 0.0, 0.0

    def change(self, now: float, by: int) -> None:
        """Note that some came or went."""
        self.area += self.number * (now - self.last)
        self.last = now
        self.number += by


class Log:
    """Moments of each request in seconds, by its number; not a number where one has not come to pass."""

    def __init__(self, requests: Requests) -> None:
        """Begin with nothing noted."""
        count = requests.count
        self.isl: list[int] = requests.isl.tolist()
        self.osl: list[int] = requests.osl.tolist()
        self.arrival = [math.nan] * count
        self.queued = [math.nan] * count  # where front ends let it go
        self.prefilled = [math.nan] * count
        self.sent = [math.nan] * count  # come to decode, or to a mixed instance
        self.instance = [0] * count  # of prefill, or mixed
        self.joined = [math.nan] * count  # its first decode step begins, or of mixed instances its prefill
        self.stepped = [math.nan] * count  # its first decode step ends
        self.first = [math.nan] * count
        self.finish = [math.nan] * count
        self.longest = [0.0] * count

    def leave(self, request: int, now: float, longest: float) -> None:
        """Note the end of a request and the longest of its decode steps."""
        self.finish[request] = now
        self.longest[request] = longest
