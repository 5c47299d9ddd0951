"""The data model: every Redis key, its type, writer, reader, TTL and bound.

Every key of a pool carries the hash tag `{pool}`, so that one script touches one hash slot of a cluster.
A script declares the pool's base as its only key and builds the rest from it; `common.lua` repeats the
suffixes of this module, and `tests/redis/test_keys.py` holds the two together.

Others have modules of their own: `desired_keys.py` is about the desired state of a pool, `turn_keys.py` about agents
that change their model, `drain_keys.py` about what operators ask of agents, `autoscale_keys.py` about who starts them,
`prefix_keys.py` about pinned prefixes;
what belongs to tenants and not to pools (API keys, limits, usage) is in `tenant_keys.py`, of processes in
`process_keys.py`, of what is reported of the fleet in `metrics_keys.py`.

`demand` and `demand:batch` are a public interface: autoscalers read their `XLEN`.
"""

from __future__ import annotations

from paddler.store.desired_keys import DesiredKeys
from paddler.store.prefix_keys import contents_key, hits_key, prefixes_key
from paddler.store.tenant_keys import api_keys_key

CLASSES = ("interactive", "normal", "batch")
"""Request classes in the order in which they are served."""

SIDES = ("foreground", "background")
"""What admission bounds apart: `interactive` and `normal` requests that somebody waits for; `batch` and background
ones. A request keeps its side when it is promoted."""

GROUP = "agent"
"""The consumer group of every lane; the agent's id is its only consumer."""

DEFAULT_PREFIX = "paddler"

WORKER_BEAT_MS = 10_000
MARK_S = 86_400


def pools_key(prefix: str) -> str:
    """set · every pool that ever had an agent, a balancer or an autoscaler · agents and autoscalers write, balancers
    and workers read · no TTL · one member a pool."""
    return f"{prefix}:pools"


def inbox_channel(prefix: str, balancer_id: str) -> str:
    """pub/sub channel of one balancer process · scripts publish deliveries (`wire.balancer`)."""
    return f"{prefix}:inbox:{balancer_id}"


def upkeep_key(prefix: str) -> str:
    """zset · arq's queue: the next run of the worker's cron job · workers write and read · no TTL · an entry or two.
    All else of arq's has a TTL: `<this>:health-check`, `arq:job:<prefix>:upkeep:<ms>`, `arq:in-progress:...`."""
    return f"{prefix}:arq"


def worker_key(prefix: str) -> str:
    """string · time (ms) of the last round of upkeep · the worker writes after every round, balancers and
    `paddler queue` read · TTL `WORKER_BEAT_MS`: while it is gone, no worker runs."""
    return f"{prefix}:worker"


def batch_jobs_key(prefix: str) -> str:
    """zset · arq's queue of batches to be run · balancers and the upkeep write, workers read and delete · no TTL · an
    entry or two a batch that has not ended. All else of arq's has a TTL: `<this>:health-check`, `arq:job:<job>`, ..."""
    return f"{prefix}:arq:batches"


MAX_MODELS = 100
"""Names of models of a pool; `register.lua` repeats it."""


class FileKeys:
    """The keys of files and batches, which belong to no pool. What is of one file or batch has its id as hash tag."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def files(self) -> str:
        """zset · file id by creation (ms) · whoever adds a file writes, the upkeep removes what has expired · TTL
        `INDEX_S`, renewed by each file · at most `MAX_FILES`."""
        return f"{self.prefix}:files"

    def file(self, file_id: str) -> str:
        """string · a file's record (`paddler.batches.records`) · written once the file is whole · TTL as the file."""
        return f"{self.prefix}:file:{{{file_id}}}"

    def chunk(self, file_id: str, number: int) -> str:
        """string · 256 KiB of a file's contents, the last chunk less · TTL as the file; an hour while it is uploaded ·
        none of a file that is kept in a directory."""
        return f"{self.prefix}:file:{{{file_id}}}:{number}"

    def batches(self) -> str:
        """zset · batch id by creation (ms) · balancers write, the upkeep removes what has expired · TTL `INDEX_S`,
        renewed by each batch."""
        return f"{self.prefix}:batches"

    def batch(self, batch_id: str) -> str:
        """string · a batch's record (`paddler.batches.records`) · balancers and the worker that runs it, by
        `change_batch` · TTL its window and 30 days."""
        return f"{self.prefix}:batch:{{{batch_id}}}"

    def done(self, batch_id: str) -> str:
        """string · a bit a line of a batch: it is in the output or the error file · the worker that runs it · TTL as
        the batch, deleted at its end · 6 KiB at most."""
        return f"{self.prefix}:batch:{{{batch_id}}}:done"

    def holder(self, batch_id: str) -> str:
        """string · which worker's run has the batch: the fence of all its changes · TTL the lease, renewed by the
        run."""
        return f"{self.prefix}:batch:{{{batch_id}}}:holder"

    def open_batches(self) -> str:
        """hash · id of a batch that has not ended -> its input file, tenant and number of lines, a space between ·
        balancers write by `open_batch`, the end deletes · no TTL · at most `MAX_OPEN`."""
        return f"{self.prefix}:batches:open"


class PoolKeys:
    """The keys of one pool below `base` = `<prefix>:{<pool>}`."""

    def __init__(self, prefix: str, pool: str) -> None:
        self.prefix = prefix
        self.pool = pool
        self.base = f"{prefix}:{{{pool}}}"

    def format(self) -> str:
        """hash · which formats of keys and messages (`format.py`) may work on this pool: `number`, `oldest`, and the
        `version` of Paddler that brought the number · enter writes, register, submit and who looks read · no TTL."""
        return f"{self.base}:format"

    def buffer(self) -> str:
        """stream · tickets (id) of waiting requests · submit and whatever returns a ticket write, whatever
        gives it away deletes · no TTL · bounded by admission."""
        return f"{self.base}:buffer"

    def order(self, request_class: str) -> str:
        """zset · waiting ids of one class by the order in which they are served · with `buffer` · no TTL."""
        return f"{self.base}:order:{request_class}"

    def age(self) -> str:
        """zset · waiting ids by the time they were first accepted (ms) · with `buffer` · no TTL."""
        return f"{self.base}:age"

    def lane(self, agent_id: str) -> str:
        """stream + group · tickets (id, attempt) given to one agent · claim writes, settle and reap delete ·
        deleted with the agent · at most `slots` entries."""
        return f"{self.base}:lane:{agent_id}"

    def demand(self) -> str:
        """stream · ledger: one entry (id) an unfinished `interactive` or `normal` request · submit writes, the final
        outcome deletes · no TTL · public."""
        return f"{self.base}:demand"

    def demand_batch(self) -> str:
        """stream · the same for `batch` · public."""
        return f"{self.base}:demand:batch"

    def agents(self) -> str:
        """zset · agent id by lease expiry (ms, server time) · register and renew write, leave and reap delete · no
        TTL · one member a live agent."""
        return f"{self.base}:agents"

    def agent(self, agent_id: str) -> str:
        """hash · an agent's snapshot: name, model, slots, state (`waiting` for a model, `loading`, `failed`, `ready`,
        `leaving`), phase, progress, issues and facts (JSON, `paddler.model_facts`), desired_slots, model_path, what
        `workers.agent.standing` says of a desired state, running_tokens (JSON: tokens of each running), pinned (JSON,
        `paddler.prefixes.records`), lease_ms, ...;
        and `drain`, which an operator set and which bars it in any state · register, renew and order write · deleted
        by leave and reap."""
        return f"{self.base}:agent:{agent_id}"

    def starting(self, digest: str) -> str:
        """string · an agent has begun to load the files of this digest and is not done · the agent writes, deletes and,
        when it starts again, reads · TTL a day."""
        return f"{self.base}:starting:{digest}"

    def free(self) -> str:
        """zset · agent id by free slots · re-derived by every script that touches a lane · no TTL."""
        return f"{self.base}:free"

    def request(self, request_id: str) -> str:
        """hash · state, fence (attempt, agent), opens, deaths and how many of the last were fruitless, score, times,
        usage, label, for how long it is kept · all scripts · TTL at the end."""
        return f"{self.base}:request:{request_id}"

    def payload(self, request_id: str) -> str:
        """string · the encoded request (`wire.agent`) · submit writes once, open reads · TTL after the end · at most
        `--max-body`."""
        return f"{self.base}:payload:{request_id}"

    def journal(self, request_id: str) -> str:
        """string · frames (`wire.balancer`) · open, emit, settle and whatever ends a request append · TTL after the
        end · bounded by the output."""
        return f"{self.base}:journal:{request_id}"

    def watchers(self, request_id: str) -> str:
        """set · inbox channels of the balancers that follow a request · submit and attach write · TTL after the end."""
        return f"{self.base}:watchers:{request_id}"

    def deadlines(self) -> str:
        """zset · waiting ids by start deadline (ms) · with `buffer` · no TTL."""
        return f"{self.base}:deadlines"

    def vtime(self, request_class: str) -> str:
        """string · fair queueing's virtual clock of a class: the latest start tag served · claim writes, submit reads ·
        no TTL."""
        return f"{self.base}:vtime:{request_class}"

    def tag(self, request_class: str, tenant: str) -> str:
        """string · the finish tag of a tenant's last request of a class, corrected by its real cost · submit,
        promotion and whatever ends a request · TTL an hour after the last request."""
        return f"{self.base}:tag:{request_class}:{tenant}"

    def promoted(self, request_class: str, tenant: str) -> str:
        """string · id of the request of a tenant that was promoted to a class last · claim; it means something only
        while that request waits there · TTL an hour."""
        return f"{self.base}:promoted:{request_class}:{tenant}"

    def queued(self, side: str, tenant: str) -> str:
        """set · a tenant's waiting ids of one side · with `buffer`, submit reads · no TTL, gone when empty · at most
        the tenant's share."""
        return f"{self.base}:queued:{side}:{tenant}"

    def aside(self) -> str:
        """set · waiting ids of the background side; all others in `buffer` are foreground · with `buffer`, submit
        reads · no TTL, gone when empty · bounded by admission."""
        return f"{self.base}:aside"

    def backlog(self, side: str) -> str:
        """string · estimated tokens of the waiting requests of one side · with `buffer`, submit and balancers read; the
        audit corrects it · no TTL."""
        return f"{self.base}:backlog:{side}"

    def holders(self, prefix_hash: str) -> str:
        """zset · agent id by expiry (ms): whose KV cache holds that prefix, and `*shared` for the shared store · hold
        writes, submit, claim and open read · TTL a few minutes, renewed while resident; dead members are ignored."""
        return f"{self.base}:holders:{prefix_hash}"

    def held(self, agent_id: str) -> str:
        """set · prefix hashes one agent holds: the reverse of `holders` · hold writes, claim and reap read · TTL as
        `holders`."""
        return f"{self.base}:held:{agent_id}"

    def kv_secret(self) -> str:
        """string · 32 random bytes: keys the names of saved states, and what is between the agents of this pool · the
        first agent that saves any writes it once, the others read · no TTL."""
        return f"{self.base}:kv:secret"

    def preempted(self, agent_id: str) -> str:
        """set · ids an agent gave back for want of room and may not take yet · release and settle · deleted when one of
        its requests ends, or with the agent."""
        return f"{self.base}:preempted:{agent_id}"

    def idempotency(self, tenant: str, key: str) -> str:
        """string · request id of a digest of a tenant's `Idempotency-Key` · submit · TTL a day; it means nothing once
        the request is gone, failed or cancelled."""
        return f"{self.base}:idempotency:{tenant}:{key}"

    def response(self, request_id: str) -> str:
        """string · what a client sent for a response that is stored (`wire.stored`) · keep writes, balancers read · TTL
        from the end of its request on, by `--response-ttl`; as long request and journal stay · at most `--max-body`."""
        return f"{self.base}:response:{request_id}"

    def kept(self) -> str:
        """hash · request id -> bytes of `response:<id>`, and their sum under the empty name · keep and forget write ·
        no TTL · bounded by `--max-stored-responses` and `--max-stored-bytes`."""
        return f"{self.base}:kept"

    def kept_by_age(self) -> str:
        """zset · the ids of `kept` by the time (ms) they were last stored or continued: who is first goes first when
        there are too many · keep, touch and forget write · no TTL · as `kept`."""
        return f"{self.base}:kept:age"

    def balancers(self) -> str:
        """zset · balancer id by lease expiry (ms) · follow writes, orphan reads · no TTL · one member a balancer."""
        return f"{self.base}:balancers"

    def marked(self) -> str:
        """set · unfinished requests of which something has changed that a choice goes by: claims read them anew · reap,
        release, requeue and claim add, whatever ends a request removes · no TTL · few."""
        return f"{self.base}:marked"

    def counters(self) -> str:
        """hash · outcome -> how often since the pool began · all scripts write, metrics and `paddler queue` read · no
        TTL · one field a name in `counters.py`."""
        return f"{self.base}:counters"

    def models(self) -> str:
        """hash · model name -> time first seen (s) of the models that agents of this pool serve or have served ·
        register and `served` write, balancers read · no TTL · at most `MAX_MODELS`; what is not served is forgotten."""
        return f"{self.base}:models"

    def served(self) -> str:
        """zset · the same names by when an agent served them last (ms) · register and `served` write · no TTL."""
        return f"{self.base}:models:served"

    def dead(self) -> str:
        """stream · dead letters: requests (id, deaths) that lost `max_attempts` agents · reap writes, requeue and drop
        delete · no TTL · capped at 1,000; their `request` and `payload` stay for a day."""
        return f"{self.base}:dead"

    def control(self, agent_id: str) -> str:
        """pub/sub channel of one agent · scripts publish `wire.agent.Control`."""
        return f"{self.base}:control:{agent_id}"

    def permanent(self) -> frozenset[str]:
        """The keys that may exist without a TTL while no agent and no unfinished request does."""
        return frozenset(
            {
                *(self.vtime(request_class) for request_class in CLASSES),
                *map(self.backlog, SIDES),
                self.format(),
                self.kv_secret(),
                self.models(),
                self.served(),
                self.dead(),
                self.balancers(),
                self.counters(),
                self.kept(),
                self.kept_by_age(),
                *DesiredKeys(self.base).permanent(),
                prefixes_key(self.base),
                contents_key(self.base),
                hits_key(self.base),
                pools_key(self.prefix),
                upkeep_key(self.prefix),
                batch_jobs_key(self.prefix),
                api_keys_key(self.prefix),
                FileKeys(self.prefix).open_batches(),
            }
        )
