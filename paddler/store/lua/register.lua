-- Step 10. Keys: agents, hash, lane and free of the agent, models; what claim touches.
-- ARGV: now, agent, lease (ms), model name or '', time (s), then snapshot field, value, ... Returns {tickets claimed, steal hint}.
-- The only script that adds to `agents`.
local agent, lease, model, seen = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

if redis.call('EXISTS', lane_key(agent)) == 0 then
  redis.call('XGROUP', 'CREATE', lane_key(agent), GROUP, '0', 'MKSTREAM')
end
redis.call('ZADD', AGENTS, now + lease, agent)
redis.call('HSET', agent_key(agent), unpack(ARGV, 6))
if model ~= '' then redis.call('HSETNX', P .. ':models', model, seen) end
return {claim_for(agent, 1000000)}
