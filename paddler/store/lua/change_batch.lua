-- Batches. Keys: KEYS[1] is the record of a batch; its done and holder. See `FileKeys` of keys.py.
-- ARGV: now, the record as it was read ('' leaves it alone), the record to set, holder ('' for whoever), lease of the
-- holder (ms, 0 leaves it, below 0 ends it), TTL of the bits (s), then lines that are done, from 0.
-- Returns 'ok', 'lost' (another has the batch) or 'moved' (the record is another one by now).
local expected, record, holder = ARGV[2], ARGV[3], ARGV[4]
local lease, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
local DONE, HOLDER = KEYS[1] .. ':done', KEYS[1] .. ':holder'

if holder ~= '' and redis.call('GET', HOLDER) ~= holder then return 'lost' end
if expected ~= '' then
  local found = redis.call('GET', KEYS[1])
  if found ~= expected and found ~= record then return 'moved' end
  if found ~= record then redis.call('SET', KEYS[1], record, 'KEEPTTL') end
end
if lease > 0 then
  redis.call('PEXPIRE', HOLDER, lease)
elseif lease < 0 then
  redis.call('DEL', HOLDER)
end
for at = 7, #ARGV do redis.call('SETBIT', DONE, tonumber(ARGV[at]), 1) end
if #ARGV > 6 then redis.call('EXPIRE', DONE, ttl) end
return 'ok'
