-- Step 4. Keys: order, buffer, age, deadlines, requests; lane, free and hash of the agent.
-- ARGV: now, agent. Returns how many tickets went into the agent's lane, or -1 when its lease is over.
local agent = ARGV[2]

if not is_leased(agent) then return -1 end
return claim_for(agent, 1000000)
