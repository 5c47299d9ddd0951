-- Step 9. Keys: request, payload, journal, watchers, demand; buffer, order, age, deadlines; lane and free of its agent.
-- ARGV: now, id, final frame for a request that no agent has begun. Returns 'cancelled', 'cancelling', 'ended' or 'gone'.
local id, frame = ARGV[2], ARGV[3]

local key = request_key(id)
local fields = redis.call('HMGET', key, 'state', 'class', 'entry', 'agent')
local state, agent = fields[1], fields[4]
if not state then return 'gone' end
if is_terminal(state) then return 'ended' end
if state == 'waiting' then
  leave_buffer(id, fields[2], fields[3])
  finish(id, 'cancelled', frame)
  return 'cancelled'
end
if state == 'assigned' then
  -- Delivered or not, it has not been opened: the fence makes whoever reads the ticket drop it.
  leave_lane(agent, fields[3])
  redis.call('HINCRBY', key, 'attempt', 1)
  if redis.call('HGET', agent_key(agent), 'solo') == id then redis.call('HDEL', agent_key(agent), 'solo') end
  finish(id, 'cancelled', frame)
  claim_for(agent, 1000000)
  return 'cancelled'
end
redis.call('HSET', key, 'cancel', 'client')
redis.call('PUBLISH', control_key(agent), cmsgpack.pack({'cancel', id}))
return 'cancelling'
