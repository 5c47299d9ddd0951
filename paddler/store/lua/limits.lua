-- Key map: KEYS[1] of the scripts that use this is a tenant's base `<prefix>:tenant:{<tenant>}`, see tenant_keys.py.
-- Rates are bounded by the generic cell rate algorithm (ATM Forum, Traffic Management 4.0, annex C; "virtual scheduling"):
-- one theoretical arrival time in place of a window of counters. A whole minute's allowance may be used at once.
local limits = {MINUTE = 60000, DAY = 86400000, KEEP_S = 172800, USAGE_KEEP_S = 34560000}

function limits.key(key) return P .. ':limits:' .. key end
function limits.open(key) return P .. ':open:' .. key end
function limits.flight(key) return P .. ':flight:' .. key end
function limits.reserved(key) return P .. ':reserved:' .. key end
function limits.usage(day) return P .. ':usage:' .. day end
function limits.accounted() return P .. ':accounted' end
function limits.today() return math.floor(now / limits.DAY) end
-- Lua writes large numbers in fourteen digits, and times in ms have a fraction.
function limits.text(number) return string.format('%.3f', number) end

-- The arrival time after `num` more, and how many ms too early they are (0: there is room). What is more than a whole
-- minute's allowance passes when all of that is there, and is paid off afterwards.
function limits.arrive(arrival, per_minute, num)
  local base = math.max(arrival, now)
  local after = base + num * limits.MINUTE / per_minute
  local early = base + math.min(num, per_minute) * limits.MINUTE / per_minute - now - limits.MINUTE
  -- A thousandth of a ms is rounding.
  return after, early > 0.001 and early or 0
end

-- What is left of a minute's allowance, and in how many ms all of it is there again.
function limits.standing(arrival, per_minute)
  local reset = math.max(arrival - now, 0)
  if per_minute == 0 then return 0, 0 end
  return math.max(math.floor((limits.MINUTE - reset) * per_minute / limits.MINUTE + 0.001), 0), math.ceil(reset)
end

function limits.record(key, id)
  local packed = redis.call('HGET', limits.reserved(key), id)
  if not packed then return end
  local tokens, is_real, per_minute = string.match(packed, '^(%d+):(%d):(%d+)$')
  return {tokens = tonumber(tokens), is_real = is_real == '1', per_minute = tonumber(per_minute)}
end

-- The reservation is over: nothing of it is held any more.
function limits.drop(key, id)
  local record = limits.record(key, id)
  if record then redis.call('HINCRBY', limits.key(key), 'held', -record.tokens) end
  redis.call('HDEL', limits.reserved(key), id)
  redis.call('ZREM', limits.open(key), id)
  redis.call('SREM', limits.flight(key), id)
  return record
end

-- So many tokens more, or fewer, than were reserved.
function limits.correct(key, per_minute, tokens)
  if per_minute == 0 or tokens == 0 then return end
  local arrival = math.max(tonumber(redis.call('HGET', limits.key(key), 't') or '0'), now)
  redis.call('HSET', limits.key(key), 't', limits.text(math.max(arrival + tokens * limits.MINUTE / per_minute, now)))
end

-- Reservations whose balancer died before it had submitted their requests. (An accounted one is gone already.)
function limits.sweep(key)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', limits.open(key), '-inf', now, 'LIMIT', 0, 100)) do
    limits.drop(key, id)
  end
end

-- Tokens of this day: what has ended, and what is held.
function limits.of_today(key)
  local fields = redis.call('HMGET', limits.key(key), 'day', 'used', 'held')
  local used = tonumber(fields[1]) == limits.today() and tonumber(fields[2]) or 0
  return used + tonumber(fields[3] or '0')
end
