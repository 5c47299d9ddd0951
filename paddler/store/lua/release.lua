-- Step 11, preemption. Keys: request, lane, free and hash of the agent; buffer, order, age, queued, aside, backlog; what claim touches.
-- ARGV: now, agent, id, attempt, '1' if nothing has come of it in any attempt: it waits for its start again, until the same
-- deadline. A running request goes back to its old place, no death counted; this agent does not
-- take it again until one of its running requests has ended. Returns the fence's status.
local agent, id, attempt = ARGV[2], ARGV[3], tonumber(ARGV[4])

local status = fence(id, agent, attempt)
if status ~= 'ok' then return status end
leave_lane(agent, redis.call('HGET', request_key(id), 'entry'))
end_solo(agent, id)
if ARGV[5] == '1' then
  local due = redis.call('HGET', request_key(id), 'due')
  if due then redis.call('HSET', request_key(id), 'deadline', due) end
end
put_back(id)
if redis.call('XLEN', lane_key(agent)) > 0 then
  redis.call('HSET', request_key(id), 'avoid', agent)
  redis.call('SADD', MARKED, id)
  redis.call('SADD', preempted_key(agent), id)
else
  -- Nothing runs that could end: what it gave up before would avoid an idle agent for ever.
  forget_preempted(agent)
end
count('preempted')
refresh_free(agent)
dispatch()
return 'ok'
