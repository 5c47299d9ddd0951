-- Step 9. Keys: request, payload, journal, watchers, demand, tag; buffer, order, age, queued, aside, deadlines, backlog; lane and free of its agent.
-- ARGV: now, id, final frame for a request that no agent has begun, an inbox or '', and whether its client may come back
-- (0 or 1). With an inbox, whoever listens there left: the request is cancelled only if nobody else follows it, it is not
-- a background one, and its client will not come back; else it is an orphan's turn (step 13).
-- Returns 'cancelled', 'cancelling', 'ended', 'gone' or 'followed'.
local id, frame, inbox = ARGV[2], ARGV[3], ARGV[4]

local key = request_key(id)
local fields = redis.call('HMGET', key, 'state', 'entry', 'agent', 'suitor')
local state, agent, suitor = fields[1], fields[3], fields[4]
if not state then return 'gone' end
if is_terminal(state) then return 'ended' end
if inbox ~= '' then
  redis.call('SREM', watchers_key(id), inbox)
  local is_kept = ARGV[5] == '1' or redis.call('HEXISTS', key, 'background') == 1
  if is_kept or redis.call('SCARD', watchers_key(id)) > 0 then return 'followed' end
end
if state == 'waiting' then
  leave_buffer(id)
  refund(id)
  finish(id, 'cancelled', frame)
  -- It kept its slots for this request.
  if suitor then claim_for(suitor, 1000000) end
  return 'cancelled'
end
if state == 'assigned' then
  -- Delivered or not, it has not been opened: the fence makes whoever reads the ticket drop it.
  leave_lane(agent, fields[2])
  redis.call('HINCRBY', key, 'attempt', 1)
  end_solo(agent, id)
  forget_preempted(agent)
  refund(id)
  finish(id, 'cancelled', frame)
  claim_for(agent, 1000000)
  return 'cancelled'
end
redis.call('HSET', key, 'cancel', 1)
redis.call('PUBLISH', control_key(agent), cmsgpack.pack({'cancel', id}))
return 'cancelling'
