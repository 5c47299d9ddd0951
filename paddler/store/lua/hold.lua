-- Affinity (step 4). Keys: agents, held of the agent, holders of each hash.
-- ARGV: now, agent, how long holders believe it (ms), in the shared store too (0 or 1), number of hashes added, hashes
-- added, then hashes removed.
-- What this agent's KV cache holds from now on. Returns 1, or 0 when its lease is over.
local agent, ttl, is_shared, num_added = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5])

if not is_leased(agent) then return 0 end
for at = 6, 5 + num_added do
  local holders = holders_key(ARGV[at])
  redis.call('ZADD', holders, now + ttl, agent)
  -- It stays there when this agent has not got it any more.
  if is_shared then redis.call('ZADD', holders, now + ttl, SHARED) end
  redis.call('PEXPIRE', holders, ttl)
  redis.call('SADD', held_key(agent), ARGV[at])
end
for at = 6 + num_added, #ARGV do
  redis.call('ZREM', holders_key(ARGV[at]), agent)
  redis.call('SREM', held_key(agent), ARGV[at])
end
redis.call('PEXPIRE', held_key(agent), ttl)
return 1
