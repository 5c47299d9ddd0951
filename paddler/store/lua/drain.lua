-- Step 11. Keys: hash, lane and free of the agent; the requests in its lane; what claim touches for other agents.
-- ARGV: now, agent. It leaves: it takes no more work; tickets not begun go back to their old place. Returns how many
-- still run.
local agent = ARGV[2]

if redis.call('EXISTS', agent_key(agent)) == 0 then return 0 end
redis.call('HSET', agent_key(agent), 'state', 'leaving')
return take_back(agent)
