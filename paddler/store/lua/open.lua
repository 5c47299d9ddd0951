-- Step 5. Keys: request, payload, journal, watchers.
-- ARGV: now, agent, id, attempt, frame (`Opened`). Returns {status, payload, journal with the frame}.
local agent, id, attempt, frame = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local status, opened, started = fence(id, agent, attempt, 'opened', 'started')
if status == 'cancelled' then return {status, '', redis.call('GET', journal_key(id)) or ''} end
if status ~= 'ok' then return {status} end
local key = request_key(id)
local length
if tonumber(opened or '0') ~= attempt then
  length = append(id, frame)
  redis.call('HSET', key, 'state', 'running', 'opened', attempt, 'opened_at', length, 'started', started or now,
    'deadline', 0)
  redis.call('HINCRBY', key, 'opens', 1)
end
local journal = frame
if length ~= #frame then journal = redis.call('GET', journal_key(id)) end
return {'ok', redis.call('GET', payload_key(id)) or '', journal}
