-- Step 5. Keys: request, payload, journal, watchers.
-- ARGV: now, agent, id, attempt, frame (`Opened`). Returns {status, payload, journal with the frame}.
local agent, id, attempt, frame = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local status = fence(id, agent, attempt)
if status == 'cancelled' then return {status, '', redis.call('GET', journal_key(id)) or ''} end
if status ~= 'ok' then return {status} end
local key = request_key(id)
if tonumber(redis.call('HGET', key, 'opened') or '0') ~= attempt then
  append(id, frame)
  redis.call('HSET', key, 'state', 'running', 'opened', attempt, 'opened_at', redis.call('STRLEN', journal_key(id)))
  redis.call('HSETNX', key, 'started', now)
end
return {'ok', redis.call('GET', payload_key(id)) or '', redis.call('GET', journal_key(id))}
