"""A request as who looks on sees it: in the queue, with an agent, and for a while after its end."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct, field

UNFINISHED = frozenset({b"waiting", b"assigned", b"running"})

FIELDS = (
    *("state", "class", "queue", "score", "tenant", "agent", "attempt", "deaths", "accepted", "started", "tokens"),
    *("background", "cancel", "label", "ended", "prompt_tokens", "completion_tokens", "cached_tokens", "opens"),
)

RowState = Literal["waiting", "assigned", "running", "done", "failed", "cancelled"]

# The very object of the default, too: others are rendered, whatever they say.
_STATES: dict[str, RowState] = {state: state for state in get_args(RowState)}


class BoardRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is as its default says is not rendered. Those that wait are served in the order of `served_as` (interactive,
    normal, batch), `score` and `id`, if no KV cache matters: so a position, which changes with every claim, need not be
    told. `prompt_tokens` are an estimate until the end; `tokens`, of the output, are told by themselves until then.
    Times are ms since the epoch by Redis's clock."""

    id: str
    pool: str
    state: RowState = get_args(RowState)[0]
    request_class: str = field(name="class")
    served_as: str | None = None
    score: float | None = None
    tenant: str
    model: str | None = None
    agent: str | None = None
    agent_name: str | None = None
    attempt: int = 0
    opens: int = 0
    deaths: int = 0
    accepted_at_ms: int
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    prompt_tokens: int
    cached_tokens: int | None = None
    tokens: int | None = None
    is_background: bool = False
    is_cancelling: bool = False


class Row:
    """The fields of one request, as Redis has them."""

    def __init__(self, values: list[bytes | None]) -> None:
        self._told = dict(zip(FIELDS, values, strict=True))

    @property
    def state(self) -> bytes | None:
        """None: nobody knows it any more."""
        return self._told["state"]

    @property
    def label(self) -> bytes:
        return self._told["label"] or b""

    def text(self, name: str) -> str:
        return (self._told[name] or b"").decode()

    def number(self, name: str) -> int | None:
        value = self._told[name]
        return None if value is None else round(float(value))

    def has(self, name: str) -> bool:
        return self._told[name] is not None

    @property
    def opens(self) -> int:
        return self.number("opens") or int(self.has("started"))


def waiting_or_given(
    request_id: str,
    pool: str,
    row: Row,
    place: tuple[str, float] | None,
    agents: dict[str, tuple[str, str]],
    model: str,
) -> BoardRow:
    """`place` is where the orders have it, class and score; `agents` are names and models of agents, `model` is what
    the client called it, if anything."""
    is_waiting = row.state == b"waiting"
    queue, score = place or (row.text("queue"), float(row.text("score") or 0))
    agent = "" if is_waiting else row.text("agent")
    name, served = agents.get(agent, ("", ""))
    return BoardRow(
        id=request_id,
        pool=pool,
        state=_STATES[row.text("state")],
        request_class=row.text("class"),
        served_as=queue if is_waiting else None,
        score=score if is_waiting else None,
        tenant=row.text("tenant"),
        model=model or served or None,
        agent=agent or None,
        agent_name=name or None,
        attempt=row.number("attempt") or 0,
        opens=row.opens,
        deaths=row.number("deaths") or 0,
        accepted_at_ms=row.number("accepted") or 0,
        started_at_ms=row.number("started"),
        prompt_tokens=row.number("tokens") or 0,
        is_background=row.has("background"),
        is_cancelling=row.has("cancel"),
    )


def ended(before: BoardRow, row: Row) -> BoardRow:
    """What was seen of it, with its end."""
    prompt = row.number("prompt_tokens")
    return BoardRow(
        id=before.id,
        pool=before.pool,
        state=_STATES[row.text("state")],
        request_class=before.request_class,
        tenant=before.tenant,
        model=before.model,
        agent=row.text("agent") or None,
        agent_name=before.agent_name,
        attempt=row.number("attempt") or 0,
        opens=row.opens,
        deaths=row.number("deaths") or 0,
        accepted_at_ms=before.accepted_at_ms,
        started_at_ms=row.number("started"),
        ended_at_ms=row.number("ended"),
        prompt_tokens=before.prompt_tokens if prompt is None else prompt,
        cached_tokens=row.number("cached_tokens"),
        tokens=row.number("completion_tokens"),
        is_background=before.is_background,
    )
