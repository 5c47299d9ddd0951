-- Key map: KEYS[1] is the pool's base `<prefix>:{<pool>}`; the suffixes below are those of keys.py.
-- The beginning of the library, before queue, choice and place. Its variables outlive a call, and calls do not overlap:
-- `begin` sets them for each. (As an `EVAL` script this part would run anew in every call, 30 to 80 us of each.)
local CLASSES = {'interactive', 'normal', 'batch'}
local SIDES = {'foreground', 'background'}
local GROUP = 'agent'
local P, BUFFER, AGE, AGENTS, FREE, DEADLINES, DEAD, BALANCERS, ASIDE, COUNTERS, MARKED, KEPT, KEPT_BY_AGE, USED, MODELS, SERVED, RECORD
local now, micros

-- ARGV[1] is always the time in ms, 0 meaning the server's own clock, with microseconds behind the point: two requests
-- of one millisecond have an order too.
local function begin(KEYS, ARGV)
  if KEYS[1] ~= P then
    P = KEYS[1]
    BUFFER = P .. ':buffer'
    AGE = P .. ':age'
    AGENTS = P .. ':agents'
    FREE = P .. ':free'
    DEADLINES = P .. ':deadlines'
    DEAD = P .. ':dead'
    BALANCERS = P .. ':balancers'
    ASIDE = P .. ':aside'
    COUNTERS = P .. ':counters'
    MARKED = P .. ':marked'
    KEPT = P .. ':kept'
    KEPT_BY_AGE = P .. ':kept:age'
    USED = P .. ':used'
    MODELS = P .. ':models'
    SERVED = P .. ':models:served'
    RECORD = P .. ':format'
  end
  local clock = redis.call('TIME')
  micros = tonumber(clock[2])
  now = tonumber(ARGV[1])
  if now == 0 then now = tonumber(clock[1]) * 1000 + micros / 1000 end
end

local function order_key(class) return P .. ':order:' .. class end
local function lane_key(agent) return P .. ':lane:' .. agent end
local function agent_key(agent) return P .. ':agent:' .. agent end
local function control_key(agent) return P .. ':control:' .. agent end
local function request_key(id) return P .. ':request:' .. id end
local function payload_key(id) return P .. ':payload:' .. id end
local function journal_key(id) return P .. ':journal:' .. id end
local function response_key(id) return P .. ':response:' .. id end
local function watchers_key(id) return P .. ':watchers:' .. id end
local function holders_key(hash) return P .. ':holders:' .. hash end
local function held_key(agent) return P .. ':held:' .. agent end
local function preempted_key(agent) return P .. ':preempted:' .. agent end
local function queued_key(side, tenant) return P .. ':queued:' .. side .. ':' .. tenant end
local function backlog_key(side) return P .. ':backlog:' .. side end
local function vtime_key(class) return P .. ':vtime:' .. class end
local function tag_key(class, tenant) return P .. ':tag:' .. class .. ':' .. tenant end
local function promoted_key(class, tenant) return P .. ':promoted:' .. class .. ':' .. tenant end
local function idempotency_key(tenant, key) return P .. ':idempotency:' .. tenant .. ':' .. key end
local function demand_key(class)
  if class == 'batch' then return P .. ':demand:batch' end
  return P .. ':demand'
end

-- Which bounds hold for a request: fixed on submit, whatever class it is promoted to.
local function side_of(class, background)
  if class == 'batch' or background then return 'background' end
  return 'foreground'
end

-- How long a finished request can still be read (resume, idempotent repeat), seconds.
local KEEP_S = 600
-- How long a dead letter keeps what is needed to requeue it, seconds.
local DEAD_KEEP_S = 86400
local MAX_DEAD = 1000
-- Up to so many bytes a payload is also in the ticket of a first attempt.
local SMALL_PAYLOAD = 16384
-- A tenant's fair-queueing tag is forgotten when it has been idle this long, seconds.
local TAG_KEEP_S = 3600
-- What has ended waits so long for whoever accounts it, seconds.
local USED_KEEP_S = 2592000

local function is_leased(agent)
  local expiry = redis.call('ZSCORE', AGENTS, agent)
  return expiry and tonumber(expiry) > now
end

-- Outcomes that nothing else remembers, named in `counters.py`; read by metrics and `paddler queue`.
local function count(what) redis.call('HINCRBY', COUNTERS, what, 1) end
