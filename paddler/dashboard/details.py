"""One agent, one request: all that is known of it, as something Rich can print. Pure."""

from __future__ import annotations

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paddler.dashboard import text
from paddler.dashboard.columns import state_of, state_of_request
from paddler.dashboard.objects import Agent, IssueDetail, Request, Timeline
from paddler.telling import begun, tier

GAUGE = 20


def agent_details(agent: Agent, updated_s: float | None) -> RenderableType:
    """What it has, how fast it is, what it runs, and each of its issues with what to do about it."""
    state = state_of(agent).text + (", drained by an operator" if _is_hidden_drain(agent) else "")
    speeds = {"output": agent.tokens_per_second, "prompts": agent.prefill_tokens_per_second}
    facts = {
        "id": agent.id,
        "state": state,
        "slots": _slots(agent),
        "model": agent.model or "none",
        "file": agent.model_path,
        "download": _download(agent),
        "context": f"{agent.context_size:,} tokens" if agent.context_size else "",
        "speed": text.joined(f"{name} {text.amount(speed)} tok/s" for name, speed in speeds.items() if speed),
        "cache": "" if agent.cache_hit_ratio is None else f"{agent.cache_hit_ratio:.0%} of prompt tokens were in it",
        "held": _held(agent),
        "host memory": _saved(agent),
        **{f"tier {one.tier}": tier(msgspec.structs.asdict(one), one.bytes, one.blocks) for one in agent.tiers},
        "template": "the desired state's, not the model's own" if agent.uses_chat_template_override else "",
        "desired state": _desired(agent),
        "last update": "" if updated_s is None else f"{text.short(updated_s * 1000)} ago",
        "process": f"{agent.pid} on {agent.host}" if agent.host else "",
        "version": text.joined((agent.version, agent.build)),
    }
    blocks: list[RenderableType] = [_facts(facts)]
    blocks += [Padding(issue_block(issue), (1, 0, 0, 0)) for issue in agent.issue_details]
    return Group(*blocks)


def request_details(request: Request, timeline: Timeline | None, trouble: str) -> RenderableType:
    """`timeline` None: not told yet, or gone with `trouble`."""
    if timeline is None:
        facts = _facts({"id": request.id, "state": state_of_request(request).text, "tenant": request.tenant})
        return Group(facts, Padding(Text(text.printable(trouble) or "Asking for its story…"), (1, 0, 0, 0)))
    served = f", served as {timeline.served_as}" if timeline.served_as not in ("", timeline.request_class) else ""
    facts = {
        "id": timeline.id,
        "state": _state(timeline),
        "class": timeline.request_class + served + (", in the background" if timeline.is_background else ""),
        "tenant": timeline.tenant,
        "model": timeline.model,
        "agent": text.joined((timeline.agent_name, timeline.agent), " "),
        "begun": begun(timeline.opens, timeline.deaths),
        "prompt": f"{timeline.prompt_tokens:,} tokens{_cached(timeline)}",
        "output": f"{timeline.tokens:,} tokens",
        "error": f"{timeline.error.code}: {timeline.error.message}" if timeline.error else "",
    }
    story = Table.grid(padding=(0, 2))
    story.add_column(no_wrap=True)
    story.add_column(justify="right", no_wrap=True)
    for event in timeline.events:
        times = f", {event.times} times, the last" if event.times > 1 else ""
        story.add_row(event.event.replace("_", " ") + times, text.short(event.after_ms))
    return Group(_facts(facts), Padding(story, (1, 0, 0, 0)))


def _facts(facts: dict[str, str | None]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(text.printable(value)))
    return table


def issue_block(issue: IssueDetail, whose: str = "") -> Table:
    """What is wrong, what Paddler does about it and what can be done; of `whose` agent, where that is not clear."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("issue", Text(text.printable(text.joined((whose, issue.kind), ": ")), style="bold red"))
    table.add_row("", Text(text.paragraphs(issue.detail)))
    table.add_row("Paddler", Text(text.paragraphs(issue.action)))
    table.add_row("you", Text(text.paragraphs(issue.remedy)))
    return table


def _slots(agent: Agent) -> str:
    if not agent.slots_total:
        return f"none yet, {agent.desired_slots_total} wanted"
    bar = text.gauge(agent.slots_processing / agent.slots_total, min(GAUGE, max(agent.slots_total, 4)))
    return f"{bar} {agent.slots_processing} of {agent.slots_total} busy"


def _held(agent: Agent) -> str:
    if not agent.slots_total or not agent.context_size:
        return ""
    bar = text.gauge(agent.held_tokens / agent.context_size, GAUGE)
    of = f"{agent.held_tokens:,} of {agent.context_size:,} tokens in {agent.held_sequences} sequences"
    return f"{bar} {of}, {agent.max_parked} of them ended at most"


def _saved(agent: Agent) -> str:
    if not agent.saved_tokens and not agent.restored_tokens:
        return ""
    size = f"{agent.saved_tokens:,} tokens saved in {agent.saved_bytes / 1e6:,.0f} MB"
    return f"{size}, {agent.restored_tokens:,} came back"


def _download(agent: Agent) -> str:
    if not agent.download_filename:
        return ""
    name, done, total = agent.download_filename, agent.download_current / 1e6, agent.download_total / 1e6
    if agent.download_indeterminate or not total:
        return f"{name}: {done:,.0f} MB so far"
    return f"{text.gauge(done / total, GAUGE)} {done / total:.0%}, {done:,.0f} of {total:,.0f} MB of {name}"


def _desired(agent: Agent) -> str:
    version = "" if agent.desired_version is None else f"version {agent.desired_version}"
    words = {
        "Applied": "it serves what is wanted",
        "Fresh": "what is wanted is on its way",
        "AttemptedAndRetrying": "it failed and is tried again",
        "Stuck": "it failed, and nothing has moved for a minute",
        "AttemptedAndNotAppliable": "it cannot be applied; it is tried again when it changes",
    }
    status = agent.state_application_status
    return text.joined((version, words.get(status, status)), ": ")


def _is_hidden_drain(agent: Agent) -> bool:
    return agent.is_draining and agent.state not in ("draining", "drained", "leaving")


def _state(timeline: Timeline) -> str:
    if timeline.is_cancelling:
        return "stopping"
    if timeline.position is None:
        return timeline.state + (f": {timeline.finish_reason}" if timeline.finish_reason else "")
    wait = timeline.estimated_wait_ms
    begins = "" if wait is None else f", begins in about {text.short(wait)}"
    return f"waits, {timeline.position} before it{begins}"


def _cached(timeline: Timeline) -> str:
    return "" if timeline.cached_tokens is None else f", {timeline.cached_tokens:,} of them cached"
