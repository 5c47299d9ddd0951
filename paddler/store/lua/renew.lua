-- Step 10. Keys: agents, hash, lane and free of the agent; the requests in its lane; what claim touches.
-- ARGV: now, agent, lease (ms), then snapshot field, value, ...
-- Returns {'ok', ids asked to stop, agents whose lease is over, ms until something may be stolen, what an operator asked of
-- it: '', 'drain' or 'remove'} or {'lost'}.
local agent, lease = ARGV[2], tonumber(ARGV[3])

if not is_leased(agent) then return {'lost'} end
redis.call('ZADD', AGENTS, now + lease, agent)
if #ARGV > 3 then redis.call('HSET', agent_key(agent), unpack(ARGV, 4)) end
local asked = redis.call('HMGET', agent_key(agent), 'drain', 'process_id')
if asked[1] then keep_wish(asked[2], asked[1]) end
local _, hint = claim_for(agent, 1000000)
local stopped = {}
for _, entry in ipairs(redis.call('XRANGE', lane_key(agent), '-', '+')) do
  local id = entry[2][2]
  if redis.call('HEXISTS', request_key(id), 'cancel') == 1 then stopped[#stopped + 1] = id end
end
return {'ok', stopped, redis.call('ZRANGEBYSCORE', AGENTS, '-inf', now, 'LIMIT', 0, 16), hint, asked[1] or ''}
