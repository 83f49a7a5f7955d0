"""The way between pools: front ends before the queue, and links that carry a prompt's cache to decode."""

import heapq

from perfmodel.service.records import FrontEnd, Transfer


class Doors:
    """Front ends: of requests in the order they come, when each goes on."""

    def __init__(self, front_end: FrontEnd) -> None:
        """Begin with all servers free."""
        self.delay, self.service = front_end.delay, front_end.service_time
        self.free = [0.0] * front_end.servers

    def through(self, now: float) -> float:
        """Return when a request goes on that comes now."""
        ready = now + self.delay
        if not self.free:
            return ready
        end = max(ready, self.free[0]) + self.service
        heapq.heapreplace(self.free, end)
        return end


class Links:
    """One link an instance of prefill; what is sent in a queue goes one after another."""

    def __init__(self, transfer: Transfer, instances: int) -> None:
        """Begin with all links free."""
        self.transfer, self.free = transfer, [0.0] * instances

    def sent(self, now: float, instance: int, tokens: int) -> float:
        """Return when the cache of a prompt has come that is ready now."""
        seconds = self.transfer.per_token * tokens
        if not self.transfer.queued:
            return now + self.transfer.latency + seconds
        self.free[instance] = end = max(now, self.free[instance]) + seconds
        return end + self.transfer.latency
