-- Step 5. Keys: request, payload, journal, watchers,
-- holders of its chain and hashes of those agents.
-- ARGV: now, agent, id, attempt, frame (`Opened`), most peers it wants to know. Returns {status, payload, journal with the
-- frame, addresses of agents that hold more of its beginning than this one, the longest first}.
local agent, id, attempt, frame, most_peers = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])

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
return {'ok', redis.call('GET', payload_key(id)) or '', journal, peers_of(agent, id, most_peers)}
