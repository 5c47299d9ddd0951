-- Keys: request, journal, payload, response, kept, kept:age.
-- ARGV: now, id, record, TTL after the end (s), how many responses and how many bytes of records may be stored.
-- Stores what belongs to a response beside its request, which from now on is kept for as long; makes room by forgetting
-- those that were used longest ago and have ended, and drops from the index what has gone by its TTL.
-- Returns 1, or 0 when the request is not there.
local id, record, ttl = ARGV[2], ARGV[3], tonumber(ARGV[4])
local max_num, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
-- So many of the oldest are looked at for each that comes: it bounds the work, and that they are too many does not last.
local MAX_LOOKED_AT = 16

local key = request_key(id)
local fields = redis.call('HMGET', key, 'state', 'keep')
if not fields[1] then return 0 end
if fields[2] then return 1 end
redis.call('HSET', key, 'keep', ttl)
redis.call('SET', response_key(id), record)
redis.call('HSET', KEPT, id, #record)
redis.call('HINCRBY', KEPT, '', #record)
redis.call('ZADD', KEPT_BY_AGE, now, id)
if is_terminal(fields[1]) then keep_until(id, ttl) end

for _, old in ipairs(redis.call('ZRANGE', KEPT_BY_AGE, 0, MAX_LOOKED_AT - 1)) do
  if old ~= id then
    local state = redis.call('HGET', request_key(old), 'state')
    local is_gone = not state or redis.call('EXISTS', response_key(old)) == 0
    local is_over = not state or is_terminal(state)
    local num, bytes = redis.call('ZCARD', KEPT_BY_AGE), tonumber(redis.call('HGET', KEPT, ''))
    if is_gone or (is_over and (num > max_num or bytes > max_bytes)) then forget_response(old, is_over) end
  end
end
return 1
