-- Step 13. Keys: balancers, request, watchers, and what cancel touches.
-- ARGV: now, id, grace (ms), inbox prefix. Notes since when no live balancer follows a request that is not background.
-- Returns 1 when it has been so for longer than the grace time and the request should be cancelled, else 0.
local id, grace, inbox_prefix = ARGV[2], tonumber(ARGV[3]), ARGV[4]

local key = request_key(id)
local fields = redis.call('HMGET', key, 'state', 'background', 'orphaned')
if not fields[1] or is_terminal(fields[1]) or fields[2] then return 0 end
for _, inbox in ipairs(redis.call('SMEMBERS', watchers_key(id))) do
  local expiry = redis.call('ZSCORE', BALANCERS, string.sub(inbox, #inbox_prefix + 1))
  if expiry and tonumber(expiry) > now then
    redis.call('HDEL', key, 'orphaned')
    return 0
  end
  redis.call('SREM', watchers_key(id), inbox)
end
if not fields[3] then
  redis.call('HSET', key, 'orphaned', now)
  return 0
end
if now - tonumber(fields[3]) < grace then return 0 end
count('orphaned')
return 1
