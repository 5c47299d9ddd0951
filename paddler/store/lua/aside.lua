-- An agent that may not work here shows itself, for whoever looks at the agents. Keys: agents, hash of the agent; these
-- two, and the fields below, are what every format reads.
-- ARGV: now, agent, lease (ms; 0: it goes), then snapshot field, value, ... Returns 1.
local agent, lease = ARGV[2], tonumber(ARGV[3])

if lease == 0 then
  redis.call('ZREM', AGENTS, agent)
  redis.call('DEL', agent_key(agent))
  return 1
end
redis.call('ZADD', AGENTS, now + lease, agent)
redis.call('HSET', agent_key(agent), 'aside', 1, unpack(ARGV, 4))
return 1
