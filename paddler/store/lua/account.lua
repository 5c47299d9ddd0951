-- Step 7 for tenants. Keys: accounted, usage; limits, open, flight and reserved of each API key.
-- ARGV: now, pool, then for each end, in the order of the pool's `used` stream: entry, key, request id, model, prompt
-- tokens, cached tokens, output tokens, 1 if it is the request's first end.
-- Each entry counts once, whoever accounts it and however often: those that are not behind the last one are passed over.
-- Returns how many were counted.
local pool = ARGV[2]

local function place(entry)
  local ms, number = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number)
end

local last = redis.call('HGET', limits.accounted(), pool)
local last_ms, last_number = -1, -1
if last then last_ms, last_number = place(last) end
local num = 0
for at = 3, #ARGV, 8 do
  local entry, key, id, model = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local prompt, cached, output, first = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  local ms, number = place(entry)
  if ms > last_ms or (ms == last_ms and number > last_number) then
    last, last_ms, last_number, num = entry, ms, number, num + 1
    local real = tonumber(prompt) + tonumber(output)
    local record = limits.drop(key, id)
    if record and not record.is_real then limits.correct(key, record.per_minute, real - record.tokens) end
    local day = math.floor(ms / limits.DAY)
    local counted = redis.call('HGET', limits.key(key), 'day')
    if not counted or tonumber(counted) < day then redis.call('HSET', limits.key(key), 'day', day, 'used', 0) end
    if not counted or tonumber(counted) <= day then redis.call('HINCRBY', limits.key(key), 'used', real) end
    redis.call('EXPIRE', limits.key(key), limits.KEEP_S)
    local usage = limits.usage(day)
    local amounts = {requests = first, prompt = prompt, cached = cached, output = output}
    for what, amount in pairs(amounts) do
      if amount ~= '0' then redis.call('HINCRBY', usage, key .. '|' .. what .. '|' .. model, amount) end
    end
    redis.call('EXPIRE', usage, limits.USAGE_KEEP_S)
  end
end
if num > 0 then
  redis.call('HSET', limits.accounted(), pool, last)
  redis.call('EXPIRE', limits.accounted(), limits.USAGE_KEEP_S)
end
return num
