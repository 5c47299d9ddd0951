-- Step 13. Keys: balancers; request and watchers of each.
-- ARGV: now, grace (ms), inbox prefix, then ids. Notes since when no live balancer follows a request that is not
-- background. Returns the ids for which it has been so for longer than the grace time, which should be cancelled.
local grace, inbox_prefix = tonumber(ARGV[2]), ARGV[3]

-- A watcher whose lease is over stays: after an outage of Redis every lease is, and its balancer still listens.
local function is_followed(id)
  for _, inbox in ipairs(redis.call('SMEMBERS', watchers_key(id))) do
    local expiry = redis.call('ZSCORE', BALANCERS, string.sub(inbox, #inbox_prefix + 1))
    if expiry and tonumber(expiry) > now then return true end
  end
  return false
end

local orphans = {}
for at = 4, #ARGV do
  local id = ARGV[at]
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'state', 'background', 'orphaned', 'cancel')
  if fields[1] and not is_terminal(fields[1]) and not fields[2] and not fields[4] then
    if is_followed(id) then
      if fields[3] then redis.call('HDEL', key, 'orphaned') end
    elseif not fields[3] then
      redis.call('HSET', key, 'orphaned', now)
    elseif now - tonumber(fields[3]) >= grace then
      if redis.call('HSETNX', key, 'abandoned', 1) == 1 then count('orphaned') end
      orphans[#orphans + 1] = id
    end
  end
end
return orphans
