-- Step 1. Keys: limits, open, flight and reserved of one API key.
-- ARGV: now, key, id of a request that is about to be submitted, its tokens (estimated), how many requests its call has
-- (0: it is not the first of them, so it costs tokens and a place in flight, and may only be refused for want of that),
-- requests/min, tokens/min, in flight, tokens/day (0: no limit), for how long (ms) it is held unless it is prolonged.
-- Returns {status, ms until it may be tried again, requests left, ms until all are, tokens left, ms until all are};
-- status is 'ok', 'known' (it is reserved already), or the limit that refuses: 'requests', 'tokens', 'in_flight', 'budget'.
local key, id, tokens, parts = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local per_minute, tokens_per_minute = tonumber(ARGV[6]), tonumber(ARGV[7])
local max_flight, budget, hold = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

limits.sweep(key)
local fields = redis.call('HMGET', limits.key(key), 'r', 't')
local requests_at, tokens_at = tonumber(fields[1] or '0'), tonumber(fields[2] or '0')

local function answer(status, wait)
  local num_requests, requests_reset = limits.standing(requests_at, per_minute)
  local num_tokens, tokens_reset = limits.standing(tokens_at, tokens_per_minute)
  return {status, math.ceil(wait), num_requests, requests_reset, num_tokens, tokens_reset}
end

if redis.call('ZSCORE', limits.open(key), id) then return answer('known', 0) end
if max_flight > 0 and redis.call('SCARD', limits.flight(key)) >= max_flight then return answer('in_flight', 0) end
local after_requests, after_tokens, early = requests_at, tokens_at, 0
if per_minute > 0 and parts > 0 then
  after_requests, early = limits.arrive(requests_at, per_minute, 1)
  if early > 0 then return answer('requests', early) end
end
if tokens_per_minute > 0 and parts > 0 then
  after_tokens, early = limits.arrive(tokens_at, tokens_per_minute, tokens * parts)
  if early > 0 then return answer('tokens', early) end
end
if tokens_per_minute > 0 then after_tokens = limits.arrive(tokens_at, tokens_per_minute, tokens) end
if budget > 0 and parts > 0 and limits.of_today(key) + tokens * parts > budget then
  return answer('budget', (limits.today() + 1) * limits.DAY - now)
end
requests_at, tokens_at = after_requests, after_tokens
redis.call('HSET', limits.key(key), 'r', limits.text(requests_at), 't', limits.text(tokens_at))
redis.call('HINCRBY', limits.key(key), 'held', tokens)
redis.call('ZADD', limits.open(key), limits.text(now + hold), id)
redis.call('SADD', limits.flight(key), id)
redis.call('HSET', limits.reserved(key), id, string.format('%d:0:%d', tokens, tokens_per_minute))
for _, name in ipairs({limits.key(key), limits.open(key), limits.flight(key), limits.reserved(key)}) do
  redis.call('EXPIRE', name, limits.KEEP_S)
end
return answer('ok', 0)
