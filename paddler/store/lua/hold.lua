-- Affinity (step 4). Keys: agents, held of the agent, holders of each hash.
-- ARGV: now, agent, how long holders believe it (ms), number of hashes added, hashes added, then hashes removed.
-- What this agent's KV cache holds from now on. Returns 1, or 0 when its lease is over.
local agent, ttl, num_added = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

if not is_leased(agent) then return 0 end
for at = 5, 4 + num_added do
  local holders = holders_key(ARGV[at])
  redis.call('ZADD', holders, now + ttl, agent)
  redis.call('PEXPIRE', holders, ttl)
  redis.call('SADD', held_key(agent), ARGV[at])
end
for at = 5 + num_added, #ARGV do
  redis.call('ZREM', holders_key(ARGV[at]), agent)
  redis.call('SREM', held_key(agent), ARGV[at])
end
redis.call('PEXPIRE', held_key(agent), ttl)
return 1
