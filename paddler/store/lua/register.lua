-- Step 10. Keys: agents, hash, lane and free of the agent, models, served, format, drained of its process; what claim touches.
-- ARGV: now, agent, lease (ms), model name or '', time (s), then snapshot field, value, ... Returns {tickets claimed, steal hint},
-- or {-1, 0} for a process that was removed: it does not come back, or {-2, 0} where its format may not work.
-- One that was drained comes back drained.
-- The only script that adds to `agents`.
local agent, lease, model, seen = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

if not is_admitted() then return {-2, 0} end
local wish
for at = 6, #ARGV, 2 do
  if ARGV[at] == 'process_id' then wish = redis.call('GET', drained_key(ARGV[at + 1])) end
end
if wish == 'remove' then return {-1, 0} end
if redis.call('EXISTS', lane_key(agent)) == 0 then
  redis.call('XGROUP', 'CREATE', lane_key(agent), GROUP, '0', 'MKSTREAM')
end
redis.call('ZADD', AGENTS, now + lease, agent)
redis.call('HSET', agent_key(agent), unpack(ARGV, 6))
if wish then redis.call('HSET', agent_key(agent), 'drain', wish, 'drained_at', now) end
if model ~= '' then
  redis.call('HSETNX', MODELS, model, seen)
  redis.call('ZADD', SERVED, now, model)
  bound_models(100) -- `MAX_MODELS`
end
return {claim_for(agent, 1000000)}
