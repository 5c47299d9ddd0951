-- Steps 2 and 8. Keys: limits, open, flight and reserved of one API key.
-- ARGV: now, key, id, what has become of the request: 'submitted' (it is held for so many ms from now on), 'ended' (with
-- so many real tokens, -1 if only `account` knows), 'refused' (it was not submitted; 1: nor does it count as a request),
-- that number, requests/min.
-- Returns 1, or 0 where nothing was reserved (any more) or it was known already.
local key, id, what, number, per_minute = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

if not redis.call('ZSCORE', limits.open(key), id) then return 0 end
if what == 'submitted' then
  redis.call('ZADD', limits.open(key), 'XX', 'GT', limits.text(now + number), id)
  return 1
end
if what == 'refused' then
  local record = limits.drop(key, id)
  limits.correct(key, record.per_minute, -record.tokens)
  if number == 1 and per_minute > 0 then
    local arrival = tonumber(redis.call('HGET', limits.key(key), 'r') or '0')
    redis.call('HSET', limits.key(key), 'r', limits.text(math.max(arrival - limits.MINUTE / per_minute, 0)))
  end
  return 1
end
local was_in_flight = redis.call('SREM', limits.flight(key), id)
local record = limits.record(key, id)
if number < 0 or record.is_real then return was_in_flight end
-- Held until it is accounted: between the two it counts once.
limits.correct(key, record.per_minute, number - record.tokens)
redis.call('HINCRBY', limits.key(key), 'held', number - record.tokens)
redis.call('HSET', limits.reserved(key), id, string.format('%d:1:%d', number, record.per_minute))
return 1
