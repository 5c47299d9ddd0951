-- Step 9, deadlines. Keys: deadlines, buffer, order, age, queued, aside, backlog, demand; tag, request, payload, journal, watchers of each.
-- ARGV: now, limit, final frame. Returns how many waiting requests passed their start deadline and were failed.
local limit, frame = tonumber(ARGV[2]), ARGV[3]

local ids = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(ids) do
  leave_buffer(id)
  refund(id)
  finish(id, 'failed', frame)
  count('expired')
end
return #ids
