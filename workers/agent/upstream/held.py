"""Which prompts a server's cache holds, as far as it tells: that of each slot's last request (llama.cpp), so as many as
it has slots. A wrong guess costs a detour, as any hint of where a prefix is.
"""

from __future__ import annotations

from collections import OrderedDict

from paddler.engine import Done, Event, Retained


class Held:
    def __init__(self) -> None:
        self.max_parked = 0
        self._running: dict[str, int] = {}
        self._parked: OrderedDict[str, int] = OrderedDict()

    def began(self, event: Retained) -> None:
        if event.num_tokens:
            self._running[event.request_id] = event.num_tokens
            self._parked.pop(event.request_id, None)

    def ended(self, request_id: str, done: Done | None) -> list[Event]:
        """What is held now of it, and what no longer is of others. `done` None: it did not come to its end."""
        num_prompt = self._running.pop(request_id, None)
        if num_prompt is None:
            return []
        if done is None or not self.max_parked:
            return [Retained(request_id, 0, num_prompt)]
        total = done.usage.prompt_tokens + done.usage.completion_tokens
        self._parked[request_id] = total
        events: list[Event] = [Retained(request_id, total, total)]
        while len(self._parked) > self.max_parked:
            gone, num = self._parked.popitem(last=False)
            events.append(Retained(gone, 0, num))
        return events
