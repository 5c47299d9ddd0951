-- Key map: KEYS[1] is the pool's base `<prefix>:{<pool>}`; the suffixes below are those of keys.py.
-- Prepended to every script. ARGV[1] is always the time in ms, 0 meaning the server's own clock.
local P = KEYS[1]
local now = tonumber(ARGV[1])
local clock = redis.call('TIME')
local micros = tonumber(clock[2])
if now == 0 then now = tonumber(clock[1]) * 1000 + math.floor(micros / 1000) end

local CLASSES = {'interactive', 'normal', 'batch'}
local GROUP = 'agent'
local BUFFER = P .. ':buffer'
local AGE = P .. ':age'
local AGENTS = P .. ':agents'
local FREE = P .. ':free'
local DEADLINES = P .. ':deadlines'
local DEAD = P .. ':dead'
local VTIME = P .. ':vtime'
local function order_key(class) return P .. ':order:' .. class end
local function lane_key(agent) return P .. ':lane:' .. agent end
local function agent_key(agent) return P .. ':agent:' .. agent end
local function control_key(agent) return P .. ':control:' .. agent end
local function request_key(id) return P .. ':request:' .. id end
local function payload_key(id) return P .. ':payload:' .. id end
local function journal_key(id) return P .. ':journal:' .. id end
local function watchers_key(id) return P .. ':watchers:' .. id end
local function demand_key(class)
  if class == 'batch' then return P .. ':demand:batch' end
  return P .. ':demand'
end

-- How long a finished request can still be read (resume, idempotent repeat), seconds.
local KEEP_S = 600

local function is_leased(agent)
  local expiry = redis.call('ZSCORE', AGENTS, agent)
  return expiry and tonumber(expiry) > now
end

-- Re-derive an agent's place in `free` from its lane: never a counter that can drift. Returns its free slots.
local function refresh_free(agent)
  local fields = redis.call('HMGET', agent_key(agent), 'slots', 'state', 'solo')
  local room = 0
  if fields[1] and fields[2] == 'ready' and not fields[3] and is_leased(agent) then
    room = tonumber(fields[1]) - redis.call('XLEN', lane_key(agent))
  end
  if room > 0 then
    redis.call('ZADD', FREE, room, agent)
  else
    redis.call('ZREM', FREE, agent)
  end
  return math.max(room, 0)
end

-- The agent with the most free slots, ties at random; whoever cannot take work is removed on the way.
local function freest()
  while true do
    local top = redis.call('ZREVRANGE', FREE, 0, 0, 'WITHSCORES')
    if #top == 0 then return nil end
    local ties = redis.call('ZCOUNT', FREE, top[2], top[2])
    local agent = redis.call('ZRANGEBYSCORE', FREE, top[2], top[2], 'LIMIT', micros % ties, 1)[1]
    if refresh_free(agent) >= tonumber(top[2]) then return agent end
  end
end

local function num_waiting()
  local sum = 0
  for _, class in ipairs(CLASSES) do sum = sum + redis.call('ZCARD', order_key(class)) end
  return sum
end

-- Append frames to a journal and tell every watcher, in one step (life of a request, step 6).
local function append(id, frames)
  local offset = redis.call('APPEND', journal_key(id), frames) - #frames
  local message = struct.pack('>I2', #id) .. id .. struct.pack('>I4', offset) .. frames
  for _, inbox in ipairs(redis.call('SMEMBERS', watchers_key(id))) do
    redis.call('PUBLISH', inbox, message)
  end
end

local function enter_buffer(id, class, score, accepted, deadline)
  local entry = redis.call('XADD', BUFFER, '*', 'id', id)
  redis.call('ZADD', order_key(class), score, id)
  redis.call('ZADD', AGE, accepted, id)
  if deadline > 0 then redis.call('ZADD', DEADLINES, deadline, id) end
  redis.call('HSET', request_key(id), 'state', 'waiting', 'entry', entry)
end

local function leave_buffer(id, class, entry)
  redis.call('XDEL', BUFFER, entry)
  redis.call('ZREM', order_key(class), id)
  redis.call('ZREM', AGE, id)
  redis.call('ZREM', DEADLINES, id)
end

local function leave_lane(agent, entry)
  redis.call('XACK', lane_key(agent), GROUP, entry)
  redis.call('XDEL', lane_key(agent), entry)
end

-- Put a waiting ticket into a lane; the raised attempt fences whoever had it before.
local function give(agent, id)
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'class', 'entry', 'deaths')
  leave_buffer(id, fields[1], fields[2])
  local attempt = redis.call('HINCRBY', key, 'attempt', 1)
  local entry = redis.call('XADD', lane_key(agent), '*', 'id', id, 'attempt', attempt)
  redis.call('HSET', key, 'state', 'assigned', 'agent', agent, 'entry', entry)
  if tonumber(fields[3] or '0') > 0 then redis.call('HSET', agent_key(agent), 'solo', id) end
  redis.call('HDEL', key, 'suitor')
end

-- Return a ticket to the buffer at its old place; the raised attempt fences whoever had it.
-- A request that has been opened has no start deadline any more.
local function put_back(id)
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'class', 'score', 'accepted', 'deadline', 'opened')
  redis.call('HINCRBY', key, 'attempt', 1)
  redis.call('HDEL', key, 'agent')
  local deadline = tonumber(fields[4])
  if fields[5] then deadline = 0 end
  enter_buffer(id, fields[1], fields[2], fields[3], deadline)
end

-- End a request: final frames, state, ledger, and a TTL on every key it has. The caller has taken its ticket out.
local function finish(id, state, frames)
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'class', 'demand')
  if #frames > 0 then append(id, frames) end
  redis.call('XDEL', demand_key(fields[1]), fields[2])
  redis.call('HSET', key, 'state', state, 'ended', now)
  redis.call('HDEL', key, 'entry', 'suitor')
  redis.call('EXPIRE', key, KEEP_S)
  redis.call('EXPIRE', payload_key(id), KEEP_S)
  redis.call('EXPIRE', journal_key(id), KEEP_S)
  redis.call('EXPIRE', watchers_key(id), KEEP_S)
end

local function is_terminal(state)
  return state == 'done' or state == 'failed' or state == 'cancelled'
end

-- The next request for this agent, or nil. A request that has already lost an agent is given only to an empty
-- lane: the first live agent that finds it at the head reserves it and claims nothing else until then.
local function choose(agent)
  for _, class in ipairs(CLASSES) do
    for _, id in ipairs(redis.call('ZRANGE', order_key(class), 0, 63)) do
      local fields = redis.call('HMGET', request_key(id), 'deaths', 'suitor')
      if tonumber(fields[1] or '0') == 0 then return id end
      local suitor = fields[2]
      if not suitor or suitor == agent or not is_leased(suitor) then
        if redis.call('XLEN', lane_key(agent)) == 0 then return id end
        redis.call('HSET', request_key(id), 'suitor', agent)
        return nil
      end
    end
  end
  return nil
end

-- Step 4: fill up to `limit` free slots of one agent. Returns how many tickets it was given.
local function claim_for(agent, limit)
  local room = math.min(refresh_free(agent), limit)
  local given = 0
  while given < room do
    local id = choose(agent)
    if not id then break end
    give(agent, id)
    given = given + 1
    if redis.call('HEXISTS', agent_key(agent), 'solo') == 1 then break end
  end
  if given > 0 then refresh_free(agent) end
  return given
end

-- Give waiting tickets to free agents, one each, the freest first, until one side runs out. An agent that may
-- take none of what waits (it has reserved a request that lost an agent) does not keep the others from theirs.
local function dispatch()
  while num_waiting() > 0 do
    local agent = freest()
    if not agent then return end
    if claim_for(agent, 1) == 0 then
      local given = 0
      for _, other in ipairs(redis.call('ZREVRANGE', FREE, 0, -1)) do
        if num_waiting() > 0 then given = given + claim_for(other, 1) end
      end
      if given == 0 then return end
    end
  end
end

-- The fence of steps 5 to 7. Returns 'ok', 'cancelled' (asked to stop), 'fenced' (another owns it now) or 'gone'.
local function fence(id, agent, attempt)
  local fields = redis.call('HMGET', request_key(id), 'state', 'agent', 'attempt', 'cancel')
  if not fields[1] then return 'gone' end
  if fields[2] ~= agent or tonumber(fields[3]) ~= attempt or is_terminal(fields[1]) then return 'fenced' end
  if fields[4] then return 'cancelled' end
  return 'ok'
end

-- Where frames that claim journal byte `offset` stand: 'ok' to append, 'repeated' when these very bytes are
-- already the journal's tail, 'short' or 'long' otherwise. Also the journal's length.
local function place(id, offset, frames)
  local length = redis.call('STRLEN', journal_key(id))
  if length == offset then return 'ok', length end
  if length < offset then return 'short', length end
  if length == offset + #frames and redis.call('GETRANGE', journal_key(id), offset, -1) == frames then
    return 'repeated', length
  end
  return 'long', length
end
