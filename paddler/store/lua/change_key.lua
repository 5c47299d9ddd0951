-- API keys. Keys: KEYS[1] is the hash of them all, see tenant_keys.py.
-- ARGV: now, key id, the record as it was read ('' for none), the record to set ('' to forget it), how many there may be,
-- a name that this change alone has.
-- Returns 'ok', 'moved' (the record is another one by now) or 'full'.
local id, expected, record, max = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local found = redis.call('HGET', KEYS[1], id) or ''
if found == record then return 'ok' end
if found ~= expected then return 'moved' end
if record == '' then
  redis.call('HDEL', KEYS[1], id)
else
  -- One field is the name of the last change.
  if found == '' and redis.call('HLEN', KEYS[1]) > max then return 'full' end
  redis.call('HSET', KEYS[1], id, record)
end
redis.call('HSET', KEYS[1], '', ARGV[6])
return 'ok'
