-- Key map: that of common.lua, which comes before this part of every script.
-- Moves of tickets between buffer and lanes, journals, fences and ends.

-- `Vectors` without any: an agent that is still computing, and has said nothing yet.
local SIGN_OF_LIFE = '\0\0\0\011\147\167vectors\144\144'

-- Slots in which an agent could begin something now, the request that it keeps them for, if any, and its claims.
local function num_free(agent)
  local fields = redis.call('HMGET', agent_key(agent), 'slots', 'state', 'solo', 'reserved', 'claims', 'drain')
  local room = 0
  if fields[1] and fields[2] == 'ready' and not fields[3] and not fields[6] and is_leased(agent) then
    room = tonumber(fields[1]) - redis.call('XLEN', lane_key(agent))
  end
  return math.max(room, 0), fields[4], fields[5]
end

local function set_free(agent, room)
  if room > 0 then
    redis.call('ZADD', FREE, room, agent)
  else
    redis.call('ZREM', FREE, agent)
  end
end

-- Re-derive an agent's place in `free` from its lane: never a counter that can drift. Returns its free slots, none
-- while it keeps them for a request that wants its lane alone.
local function refresh_free(agent)
  local room, reserved = num_free(agent)
  if reserved then room = 0 end
  set_free(agent, room)
  return room
end

-- Whether the last agent that a request lost had got nothing new out of it: then it may be what killed that agent.
local function is_suspect(fruitless) return fruitless and tonumber(fruitless) > 0 end

-- A suspect is given away, ended, or no longer waits for this one: whoever kept its lane for it
-- may take others again.
local function end_reservation(id)
  local suitor = redis.call('HGET', request_key(id), 'suitor')
  if not suitor then return end
  redis.call('HDEL', request_key(id), 'suitor')
  if redis.call('HGET', agent_key(suitor), 'reserved') == id then
    redis.call('HDEL', agent_key(suitor), 'reserved')
    refresh_free(suitor)
  end
end

local function num_waiting() return redis.call('XLEN', BUFFER) end

local function num_waiting_of(side)
  local aside = redis.call('SCARD', ASIDE)
  if side == 'background' then return aside end
  return num_waiting() - aside
end

-- Append frames to a journal and tell every watcher, in one step (life of a request, step 6). Returns its length.
local function append(id, frames)
  local length = redis.call('APPEND', journal_key(id), frames)
  local offset = length - #frames
  local message = struct.pack('>I2', #id) .. id .. struct.pack('>I4', offset) .. frames
  for _, inbox in ipairs(redis.call('SMEMBERS', watchers_key(id))) do
    redis.call('PUBLISH', inbox, message)
  end
  return length
end

-- Start-time fair queueing between the tenants of a class (Goyal, Vin and Cheng 1996), in tokens by weight as the
-- Virtual Token Counter (OSDI 2024) charges them. Returns the start tag and the finish tag, which is the score. Each
-- class has a clock of its own: what other classes are served must not carry a newcomer behind a long backlog.
local function charge(class, tenant, cost, weight)
  local last = redis.call('GET', tag_key(class, tenant)) or '0'
  local start = math.max(tonumber(redis.call('GET', vtime_key(class)) or '0'), tonumber(last))
  local finish = start + cost / weight
  redis.call('SET', tag_key(class, tenant), finish, 'EX', TAG_KEEP_S)
  return start, finish
end

-- The estimate that a tenant was charged for a request was wrong by so many tokens. Requests that wait keep their tags:
-- the difference is settled with the next ones.
local function correct(class, tenant, tokens, weight)
  local tag = redis.call('GET', tag_key(class, tenant))
  if tag then redis.call('SET', tag_key(class, tenant), math.max(tonumber(tag) + tokens / weight, 0), 'KEEPTTL') end
end

-- A request that ends before any agent has begun it costs nothing, nor where it was before it was promoted.
local function refund(id)
  local fields = redis.call('HMGET', request_key(id), 'queue', 'class', 'tenant', 'cost', 'weight', 'opened')
  if fields[6] then return end
  local is_charged = false
  for _, class in ipairs(CLASSES) do
    is_charged = is_charged or class == fields[1]
    if is_charged then correct(class, fields[3], -tonumber(fields[4]), tonumber(fields[5])) end
    if class == fields[2] then return end
  end
end

-- `queue` is the class in whose order it stands: its own, or a higher one after promotion.
local function enter_buffer(id, side, tenant, queue, score, accepted, deadline, cost)
  local entry = redis.call('XADD', BUFFER, '*', 'id', id)
  redis.call('ZADD', order_key(queue), score, id)
  redis.call('ZADD', AGE, accepted, id)
  redis.call('SADD', queued_key(side, tenant), id)
  if side == 'background' then redis.call('SADD', ASIDE, id) end
  redis.call('INCRBY', backlog_key(side), cost)
  if deadline > 0 then redis.call('ZADD', DEADLINES, deadline, id) end
  redis.call('HSET', request_key(id), 'state', 'waiting', 'entry', entry, 'queue', queue)
end

local function leave_buffer(id)
  local fields = redis.call('HMGET', request_key(id), 'tenant', 'queue', 'entry', 'cost', 'class', 'background')
  local side = side_of(fields[5], fields[6])
  redis.call('XDEL', BUFFER, fields[3])
  redis.call('ZREM', order_key(fields[2]), id)
  redis.call('ZREM', AGE, id)
  redis.call('SREM', queued_key(side, fields[1]), id)
  if side == 'background' then redis.call('SREM', ASIDE, id) end
  redis.call('DECRBY', backlog_key(side), fields[4])
  redis.call('ZREM', DEADLINES, id)
  end_reservation(id)
end

local function leave_lane(agent, entry)
  redis.call('XACK', lane_key(agent), GROUP, entry)
  redis.call('XDEL', lane_key(agent), entry)
end

-- Fair queueing's clock moves on to the start tag of what is served.
local function advance(class, start)
  if start > tonumber(redis.call('GET', vtime_key(class)) or '0') then redis.call('SET', vtime_key(class), start) end
end

-- The ticket of one attempt, with fields of its own; returns what the request's hash must say of it.
local function put_into_lane(agent, id, attempt, ...)
  local entry = redis.call('XADD', lane_key(agent), '*', 'id', id, 'attempt', attempt, ...)
  redis.call('HINCRBY', agent_key(agent), 'claims', 1)
  return 'state', 'assigned', 'agent', agent, 'attempt', attempt, 'entry', entry
end

-- A new request, of which `fields` is all that is to be known beside its ticket. A small payload goes with that: the
-- agent need not wait for the answer of `open` to begin.
local function give_at_once(agent, id, class, start, fields, payload)
  advance(class, start)
  local ticket = {}
  if payload and #payload <= SMALL_PAYLOAD then ticket = {'payload', payload} end
  for _, field in ipairs({put_into_lane(agent, id, 1, unpack(ticket))}) do fields[#fields + 1] = field end
  redis.call('HSET', request_key(id), unpack(fields))
end

-- Put a waiting ticket into a lane; the raised attempt fences whoever had it before.
local function give(agent, id)
  local key = request_key(id)
  leave_buffer(id)
  local fields = redis.call('HMGET', key, 'fruitless', 'start', 'queue', 'attempt', 'delivered')
  advance(fields[3], tonumber(fields[2]))
  redis.call('HSET', key, 'delivered', fields[5] or now, put_into_lane(agent, id, tonumber(fields[4] or '0') + 1))
  if is_suspect(fields[1]) then redis.call('HSET', agent_key(agent), 'solo', id) end
end

-- Return a ticket to the buffer at its old place; the raised attempt fences whoever had it.
-- `deadline` is 0 once it has begun.
local function put_back(id)
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'tenant', 'queue', 'score', 'accepted', 'deadline', 'cost', 'class',
    'background')
  redis.call('HINCRBY', key, 'attempt', 1)
  redis.call('HINCRBY', key, 'returns', 1)
  redis.call('HSET', key, 'returned', now)
  redis.call('HDEL', key, 'agent', 'kv_from')
  enter_buffer(id, side_of(fields[7], fields[8]), fields[1], fields[2], fields[3], fields[4], tonumber(fields[5]),
    fields[6])
end

-- A suspect has begun to speak, or is gone: the lane is open to others again.
local function end_solo(agent, id)
  if redis.call('HGET', agent_key(agent), 'solo') == id then redis.call('HDEL', agent_key(agent), 'solo') end
end

-- One of the agent's requests has ended, or none is left: it may take back what it had to give up for want of room.
local function forget_preempted(agent)
  local ids = redis.call('SMEMBERS', preempted_key(agent))
  if #ids == 0 then return end
  for _, id in ipairs(ids) do
    -- Another agent may have had to give it up since.
    if redis.call('HGET', request_key(id), 'avoid') == agent then redis.call('HDEL', request_key(id), 'avoid') end
  end
  redis.call('DEL', preempted_key(agent))
end

-- What is left of a request that has ended can be read for so many seconds from now on. A stored response is one, and
-- its journal is all there is of its output.
local function keep_until(id, seconds)
  redis.call('EXPIRE', request_key(id), math.max(seconds, KEEP_S))
  redis.call('EXPIRE', journal_key(id), math.max(seconds, KEEP_S))
  redis.call('EXPIRE', response_key(id), seconds)
end

-- Forget a stored response, and at once all that a request has left that has ended.
local function forget_response(id, is_over)
  local size = redis.call('HGET', KEPT, id)
  if size then
    redis.call('HDEL', KEPT, id)
    redis.call('HINCRBY', KEPT, '', -tonumber(size))
  end
  redis.call('ZREM', KEPT_BY_AGE, id)
  redis.call('HDEL', request_key(id), 'keep')
  if is_over then redis.call('UNLINK', request_key(id), journal_key(id), payload_key(id)) end
  return redis.call('UNLINK', response_key(id))
end

-- What a request of an API key has used, for whoever accounts it: in the step that ends it, so that no death of a process
-- costs or doubles it. A dead letter that is requeued ends once more, and is one request all the same.
local function note_use(id, api_key)
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'tenant', 'agent', 'prompt_tokens', 'completion_tokens', 'cached_tokens')
  local model = fields[2] and redis.call('HGET', agent_key(fields[2]), 'model')
  local first = redis.call('HINCRBY', key, 'ends', 1) == 1 and 1 or 0
  redis.call('XADD', USED, '*', 'id', id, 'tenant', fields[1], 'key', api_key, 'model', model or '', 'prompt',
    fields[3] or 0, 'cached', fields[5] or 0, 'output', fields[4] or 0, 'first', first)
  redis.call('EXPIRE', USED, USED_KEEP_S)
end

-- End a request: final frames, state, ledger, and a TTL on every key it keeps. The caller has taken its ticket out.
-- `class` and `entry` in the ledger spare a look; what follows them is written with the state.
local function finish(id, state, frames, class, entry, ...)
  local key = request_key(id)
  if not class then class, entry = unpack(redis.call('HMGET', key, 'class', 'demand')) end
  if #frames > 0 then append(id, frames) end
  redis.call('XDEL', demand_key(class), entry)
  redis.call('HSET', key, 'state', state, 'ended', now, ...)
  count(state)
  redis.call('HDEL', key, 'entry', 'chain')
  redis.call('SREM', MARKED, id)
  redis.call('EXPIRE', payload_key(id), KEEP_S)
  local kept = redis.call('HMGET', key, 'keep', 'api_key')
  keep_until(id, tonumber(kept[1] or KEEP_S))
  redis.call('DEL', watchers_key(id))
  if kept[2] then note_use(id, kept[2]) end
end

local function is_terminal(state)
  return state == 'done' or state == 'failed' or state == 'cancelled'
end

-- The fence of steps 5 to 7. Returns 'ok', 'cancelled' (asked to stop), 'fenced' (another owns it now) or 'gone'; with
-- 'ok' the values of further fields.
local function fence(id, agent, attempt, ...)
  local fields = redis.call('HMGET', request_key(id), 'state', 'agent', 'attempt', 'cancel', ...)
  if not fields[1] then return 'gone' end
  if fields[2] ~= agent or tonumber(fields[3]) ~= attempt or is_terminal(fields[1]) then
    count('fenced')
    return 'fenced'
  end
  if fields[4] then return 'cancelled' end
  return 'ok', unpack(fields, 5)
end

-- Where frames that claim journal byte `offset` stand: 'ok' to append, 'repeated' when these very bytes are
-- already the journal's tail, 'short' or 'long' otherwise. Also the journal's length.
local function place(id, offset, frames)
  local length = redis.call('STRLEN', journal_key(id))
  if length == offset then return 'ok', length end
  if length < offset then
    count('short')
    return 'short', length
  end
  local tail = redis.call('GETRANGE', journal_key(id), offset, -1)
  if tail == frames then return 'repeated', length end
  -- A balancer may have written a part of these back (step 12): the agent goes on from there.
  if #tail < #frames and string.sub(frames, 1, #tail) == tail then
    count('short')
    return 'short', length
  end
  count('long')
  return 'long', length
end

-- The entry of a dead letter; the stream is capped, so looking through it is bounded.
local function find_letter(id)
  for _, letter in ipairs(redis.call('XREVRANGE', DEAD, '+', '-')) do
    if letter[2][2] == id then return letter[1] end
  end
end
