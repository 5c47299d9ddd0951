-- Step 11, at an operator's word. Keys: agents, hash, lane, free and control channel of the agent, drained of its process; the
-- requests in its lane; what claim touches.
-- ARGV: now, agent, what it is told: 'drain' (take no more, stay), 'undrain' or 'remove' (take no more, hand over, end).
-- The field `drain` of its hash bars it, whatever state it tells of itself. Returns {'ok', how many requests still run},
-- {'gone'}, or {'leaving'} where it can stay no longer.
local agent, what = ARGV[2], ARGV[3]

local key = agent_key(agent)
local fields = redis.call('HMGET', key, 'state', 'drain', 'process_id')
local state, wish, process = fields[1], fields[2], fields[3]
if not state or not redis.call('ZSCORE', AGENTS, agent) then return {'gone'} end
local is_leaving = state == 'leaving' or wish == 'remove'
if what ~= 'remove' and is_leaving then return {'leaving'} end
local num_running
if what == 'undrain' then
  redis.call('HDEL', key, 'drain', 'drained_at')
  if process then redis.call('DEL', drained_key(process)) end
  if wish and is_leased(agent) then claim_for(agent, 1000000) end
  num_running = redis.call('XLEN', lane_key(agent))
else
  redis.call('HSET', key, 'drain', what)
  redis.call('HSETNX', key, 'drained_at', now)
  keep_wish(process, what)
  num_running = take_back(agent)
end
-- Repeated too: whoever missed it the first time is told again.
redis.call('PUBLISH', control_key(agent), cmsgpack.pack({'order', what}))
return {'ok', num_running}
