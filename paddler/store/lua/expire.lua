-- Step 9, deadlines. Keys: deadlines, buffer, order, age, demand; request, payload, journal, watchers of each.
-- ARGV: now, limit, final frame. Returns how many waiting requests passed their start deadline and were failed.
local limit, frame = tonumber(ARGV[2]), ARGV[3]

local ids = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(ids) do
  local fields = redis.call('HMGET', request_key(id), 'class', 'entry')
  leave_buffer(id, fields[1], fields[2])
  finish(id, 'failed', frame)
end
return #ids
