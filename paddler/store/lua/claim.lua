-- Step 4. Keys: order, age, buffer, queued, aside, deadlines, backlog, vtime, tag, promoted, requests, holders; lane, free, held and hash of the agent.
-- ARGV: now, agent. Returns {tickets given, ms until something is due (0: nothing)}, or {-1, 0} when its lease is over.
local agent = ARGV[2]

if not is_leased(agent) then return {-1, 0} end
return {claim_for(agent, 1000000)}
