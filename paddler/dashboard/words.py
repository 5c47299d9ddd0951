"""What the dashboard says in whole sentences."""

from __future__ import annotations

from paddler.dashboard import text
from paddler.dashboard.objects import Agent, AgentOrder, CancelAnswer, Request
from paddler.dashboard.picture import Picture, Trouble


def waiting_for_news(where: str) -> str:
    return f"Asking {where} who there is…"


def no_answer(trouble: Trouble) -> str:
    """Of a balancer that has told nothing yet."""
    return f"{trouble.words[:1].upper()}{trouble.words[1:]}.\n\nIt is asked again until it answers."


def no_agent(pool_name: str, waiting: int | None) -> str:
    pool = "" if pool_name == "default" else f" --pool {pool_name}"
    first = f"No agent has joined pool {pool_name}."
    if waiting:
        first += f" {_count(waiting, 'request')} will be served by the first that does."
    return (
        f"{first}\n\nStart one on a machine that reaches the balancer's Redis:\n\n"
        f"    paddler agent --slots 4{pool} --redis-url redis://HOST:6379/0\n\n"
        "It shows up here by itself."
    )


def offline(trouble: Trouble, now: float) -> str:
    """One line: since when, why."""
    return f"OFFLINE {text.short((now - trouble.since) * 1000)}: {trouble.words}"


def no_requests(is_filtered: bool) -> str:
    return "No request passes the filter." if is_filtered else "Nothing waits and nothing runs."


def loading_requests() -> str:
    return "Asking for the requests…"


def no_match(filter_text: str) -> str:
    return f"No agent has all of {filter_text!r} in its name, id, state, model, host or issues."


def confirm_drain(agent: Agent) -> str:
    busy = agent.slots_processing
    ends = f"The {_count(busy, 'request')} it works on may end there." if busy else "It works on nothing now."
    return f"{ends}\nIt takes no new ones, and stays with its model loaded until you undrain it."


def confirm_undrain(agent: Agent) -> str:
    return f"It takes requests again, on {_count(agent.slots_total or agent.desired_slots_total, 'slot')}."


def confirm_cancel(request: Request) -> str:
    runs = f"It runs on {request.agent_name or request.agent} and stops within a step."
    where = runs if request.agent else "It waits."
    who = f" of tenant {request.tenant}" if request.tenant else ""
    return f"{where}\nIts client{who} is told that it was cancelled; this cannot be undone."


def told(agent: Agent, order: AgentOrder) -> str:
    if order.order == "undrain":
        return f"{agent.label} takes requests again."
    number = order.requests_running
    running = f"{number} of its requests still run" if number != 1 else "1 of its requests still runs"
    return f"{agent.label} takes no more requests; {running}."


def cancelled(answer: CancelAnswer) -> str:
    ends = {"cancelled": "It is cancelled.", "cancelling": "Its agent has been told to stop."}
    return ends.get(answer.outcome, "It had ended already.")


def summary(picture: Picture) -> str:
    """The pool in numbers."""
    pool = picture.pool
    if pool is None:
        return ""
    processing, total = picture.slots
    parts = [f"slots {processing}/{total} busy", f"demand {pool.demand}"]
    if pool.demand_batch:
        parts.append(f"batch {pool.demand_batch}")
    if pool.oldest_wait_ms is not None and picture.waiting:
        parts.append(f"oldest wait {text.short(pool.oldest_wait_ms)}")
    if pool.dead_letters:
        parts.append(f"dead {pool.dead_letters}")
    if not picture.has_worker:
        parts.append("NO WORKER")
    return "  ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
