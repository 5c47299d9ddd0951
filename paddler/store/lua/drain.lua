-- Step 11. Keys: hash, lane and free of the agent; the requests in its lane; what claim touches for other agents.
-- ARGV: now, agent. Takes no more work; tickets not begun go back to their old place. Returns how many still run.
local agent = ARGV[2]

if redis.call('EXISTS', agent_key(agent)) == 0 then return 0 end
redis.call('HSET', agent_key(agent), 'state', 'leaving')
local reserved = redis.call('HGET', agent_key(agent), 'reserved')
if reserved then end_reservation(reserved) end
refresh_free(agent)
for _, entry in ipairs(redis.call('XRANGE', lane_key(agent), '-', '+')) do
  local id = entry[2][2]
  if redis.call('HGET', request_key(id), 'state') == 'assigned' then
    leave_lane(agent, entry[1])
    end_solo(agent, id)
    put_back(id)
  end
end
dispatch()
return redis.call('XLEN', lane_key(agent))
