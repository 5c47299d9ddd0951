-- Who does something for all. Keys: KEYS[1] is a lease (`metrics_keys.py`).
-- ARGV: now, who asks, for how long (ms; 0 gives it up).
-- Returns 1 if it is theirs from now on.
local who, lease = ARGV[2], tonumber(ARGV[3])

if lease == 0 then
  if redis.call('GET', KEYS[1]) == who then redis.call('DEL', KEYS[1]) end
  return 0
end
if redis.call('SET', KEYS[1], who, 'NX', 'PX', lease) then return 1 end
if redis.call('GET', KEYS[1]) ~= who then return 0 end
redis.call('PEXPIRE', KEYS[1], lease)
return 1
