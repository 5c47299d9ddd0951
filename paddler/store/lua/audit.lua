-- Upkeep: the invariants. Keys: those of the items given and of the requests and agents they lead to.
-- ARGV: now, final frame of a cancelled request, how many may wait for the backlog to be summed, then per item: where it
-- was found, its entry there or '', an id. Where: demand, demand:batch, buffer (stream entries), request, queued (entry:
-- side and tenant), agent, backlog.
-- `request:<id>` and the lanes are believed, everything else is derived from them and put right, in one step, so that
-- nothing that moves at the same time looks broken. Returns what was repaired: counter, id, ...
local cancel_frame, max_summed = ARGV[2], tonumber(ARGV[3])

local repairs = {}
local function repaired(what, id)
  count(what)
  repairs[#repairs + 1] = what
  repairs[#repairs + 1] = id
end

local function has_entry(stream, entry, id)
  if not entry then return false end
  local found = redis.call('XRANGE', stream, entry, entry)
  return #found == 1 and found[1][2][2] == id
end

-- Out of everything that lists waiting ids, but for the order of one class. Returns from how many.
local function delist(id, tenant, queue)
  local num = 0
  for _, class in ipairs(CLASSES) do
    if class ~= queue then num = num + redis.call('ZREM', order_key(class), id) end
  end
  if not queue then
    num = num + redis.call('ZREM', AGE, id) + redis.call('ZREM', DEADLINES, id)
    num = num + redis.call('SREM', ASIDE, id)
    for _, side in ipairs(SIDES) do
      if tenant then num = num + redis.call('SREM', queued_key(side, tenant), id) end
    end
  end
  return num
end

local function own_keys(id) return {request_key(id), payload_key(id), journal_key(id), watchers_key(id)} end

local function mend_ended(id, fields)
  if delist(id, fields[2], nil) > 0 then repaired('repaired_buffer', id) end
  if fields[3] and fields[4] and redis.call('XDEL', demand_key(fields[3]), fields[4]) == 1 then
    repaired('repaired_ledger', id)
  end
  local num = 0
  for _, key in ipairs(own_keys(id)) do
    if redis.call('TTL', key) == -1 then num = num + redis.call('EXPIRE', key, KEEP_S) end
  end
  if num > 0 then repaired('repaired_ttl', id) end
end

-- What waits on one side is in none of the sets of the other. Returns from how many it was removed.
local function leave_other_side(id, tenant, side)
  if side == 'background' then return redis.call('SREM', queued_key('foreground', tenant), id) end
  return redis.call('SREM', queued_key('background', tenant), id) + redis.call('SREM', ASIDE, id)
end

local function mend_waiting(id, side, tenant, queue, entry)
  local is_whole = has_entry(BUFFER, entry, id) and redis.call('ZSCORE', order_key(queue), id)
    and redis.call('ZSCORE', AGE, id) and redis.call('SISMEMBER', queued_key(side, tenant), id) == 1
    and (side == 'foreground' or redis.call('SISMEMBER', ASIDE, id) == 1)
  if delist(id, tenant, queue) + leave_other_side(id, tenant, side) == 0 and is_whole then return end
  if not is_whole then
    if entry then redis.call('XDEL', BUFFER, entry) end
    local fields = redis.call('HMGET', request_key(id), 'score', 'accepted', 'deadline', 'cost')
    enter_buffer(id, side, tenant, queue, fields[1], fields[2], tonumber(fields[3]), fields[4])
    redis.call('DECRBY', backlog_key(side), fields[4]) -- the backlog is an item of its own
  end
  repaired('repaired_buffer', id)
end

local function mend_given(id, tenant, agent, entry, is_cancelled)
  if delist(id, tenant, nil) > 0 then repaired('repaired_buffer', id) end
  local is_known = agent and redis.call('ZSCORE', AGENTS, agent)
  if is_known and has_entry(lane_key(agent), entry, id) then return end
  if agent then end_solo(agent, id) end
  if is_cancelled then
    redis.call('HINCRBY', request_key(id), 'attempt', 1)
    finish(id, 'cancelled', cancel_frame)
  else
    put_back(id)
  end
  repaired('repaired_lost', id)
end

local function mend(id)
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'state', 'tenant', 'class', 'demand', 'queue', 'entry', 'agent', 'cancel',
    'background')
  local state, tenant, class, entry = fields[1], fields[2], fields[3], fields[6]
  if not state or is_terminal(state) then return mend_ended(id, fields) end
  if not has_entry(demand_key(class), fields[4], id) then
    redis.call('HSET', key, 'demand', redis.call('XADD', demand_key(class), '*', 'id', id))
    repaired('repaired_ledger', id)
  end
  local num = 0
  for _, own in ipairs(own_keys(id)) do num = num + redis.call('PERSIST', own) end
  if num > 0 then repaired('repaired_ttl', id) end
  if state == 'waiting' then
    mend_waiting(id, side_of(class, fields[9]), tenant, fields[5], entry)
  else
    mend_given(id, tenant, fields[7], entry, fields[8])
  end
end

-- An agent that is in `agents` without a hash, or has keys but is not in `agents`: nobody would reap it.
local function forget_agent(agent, entries)
  forget_preempted(agent)
  redis.call('DEL', lane_key(agent), agent_key(agent))
  redis.call('ZREM', AGENTS, agent)
  redis.call('ZREM', FREE, agent)
  repaired('repaired_agent', agent)
  for _, entry in ipairs(entries) do mend(entry[2][2]) end
end

local function audit_agent(agent)
  local is_known, has_hash = redis.call('ZSCORE', AGENTS, agent), redis.call('EXISTS', agent_key(agent)) == 1
  local entries = redis.call('XRANGE', lane_key(agent), '-', '+')
  if not is_known or not has_hash then
    local keys = redis.call('EXISTS', lane_key(agent), preempted_key(agent))
    if is_known or has_hash or keys > 0 or redis.call('ZSCORE', FREE, agent) then forget_agent(agent, entries) end
    return
  end
  for _, entry in ipairs(entries) do
    local id = entry[2][2]
    local fields = redis.call('HMGET', request_key(id), 'state', 'agent', 'entry')
    local is_held = fields[1] == 'assigned' or fields[1] == 'running'
    if not is_held or fields[2] ~= agent or fields[3] ~= entry[1] then
      leave_lane(agent, entry[1])
      repaired('repaired_lane', id)
    end
  end
  local solo = redis.call('HGET', agent_key(agent), 'solo')
  if solo then
    local fields = redis.call('HMGET', request_key(solo), 'state', 'agent')
    if fields[2] ~= agent or not fields[1] or is_terminal(fields[1]) then
      end_solo(agent, solo)
      repaired('repaired_solo', agent)
    end
  end
  -- A lease that is over is no fault: whoever reads `free` skips it until the agent is reaped.
  if is_leased(agent) then
    local before = tonumber(redis.call('ZSCORE', FREE, agent) or '0')
    if refresh_free(agent) ~= before then repaired('repaired_free', agent) end
  end
end

local function audit_entry(stream, entry, id)
  local fields = redis.call('HMGET', request_key(id), 'state', 'class', 'demand', 'entry')
  local is_true
  if stream == BUFFER then
    is_true = fields[1] == 'waiting' and fields[4] == entry
  else
    is_true = fields[1] and not is_terminal(fields[1]) and demand_key(fields[2]) == stream and fields[3] == entry
  end
  if not is_true and redis.call('XDEL', stream, entry) == 1 then
    repaired(stream == BUFFER and 'repaired_buffer' or 'repaired_ledger', id)
  end
  mend(id)
end

local function audit_queued(whose, id)
  local fields = redis.call('HMGET', request_key(id), 'state', 'tenant', 'class', 'background')
  local set = P .. ':queued:' .. whose
  local is_true = fields[1] == 'waiting' and queued_key(side_of(fields[3], fields[4]), fields[2]) == set
  if not is_true and redis.call('SREM', set, id) == 1 then
    repaired('repaired_buffer', id)
  end
end

local function audit_backlog()
  if num_waiting() > max_summed then return end
  local sums = {foreground = 0, background = 0}
  for _, class in ipairs(CLASSES) do
    for _, id in ipairs(redis.call('ZRANGE', order_key(class), 0, -1)) do
      local fields = redis.call('HMGET', request_key(id), 'cost', 'class', 'background')
      local side = side_of(fields[2], fields[3])
      sums[side] = sums[side] + tonumber(fields[1] or '0')
    end
  end
  for _, side in ipairs(SIDES) do
    if tonumber(redis.call('GET', backlog_key(side)) or '0') ~= sums[side] then
      redis.call('SET', backlog_key(side), sums[side])
      repaired('repaired_backlog', side)
    end
  end
end

for at = 4, #ARGV, 3 do
  local where, entry, id = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if where == 'request' then mend(id)
  elseif where == 'agent' then audit_agent(id)
  elseif where == 'queued' then audit_queued(entry, id)
  elseif where == 'backlog' then audit_backlog()
  else audit_entry(P .. ':' .. where, entry, id)
  end
end
-- Another id, broken and not audited yet, may stand first in order: then its turn comes when that one is mended.
if #repairs > 0 then pcall(dispatch) end
return repairs
