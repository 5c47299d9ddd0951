-- Who comes to work on a pool, before anything else. Keys: format, counters, agents and their hashes.
-- ARGV: now, Paddler's version, whether this process may shut older formats out (0 or 1).
-- Returns {status, number, oldest, who}: `ok`; `outdated`: the pool belongs to newer formats; `unread`: what is there may be
-- older than this version reads; `beside`: an agent works here that this version cannot work beside; `early`: others have
-- to shut older formats out first. But for `ok` nothing is changed. In the same step as a look at the agents, which
-- `register` admits: no agent can be overlooked.
local version, may_raise = ARGV[2], ARGV[3] == '1'

local found = redis.call('HMGET', RECORD, 'number', 'oldest', 'version')
local number, oldest = tonumber(found[1] or '1'), tonumber(found[2] or '1')
local is_untouched = not found[1] and redis.call('EXISTS', COUNTERS) == 0
if is_untouched then
  for _, agent in ipairs(redis.call('ZRANGE', AGENTS, 0, -1)) do
    if redis.call('HEXISTS', agent_key(agent), 'aside') == 0 then is_untouched = false end
  end
end
if is_untouched and may_raise then number, oldest = FORMAT, OLDEST_FORMAT end
-- An agent opens no pool with its own numbers: all balancers and workers of others would end.
if is_untouched and oldest < OLDEST_FORMAT then return {'early', number, oldest, ''} end
if FORMAT < oldest then return {'outdated', number, oldest, found[3] or ''} end
if number < OLDEST_FORMAT then return {'unread', number, oldest, found[3] or ''} end
if oldest < OLDEST_FORMAT then
  if not may_raise then return {'early', number, oldest, found[3] or ''} end
  for _, agent in ipairs(redis.call('ZRANGEBYSCORE', AGENTS, '(' .. now, '+inf')) do
    local fields = redis.call('HMGET', agent_key(agent), 'format', 'aside', 'name')
    local told = tonumber(fields[1] or '1')
    if told < OLDEST_FORMAT and not fields[2] then return {'beside', told, oldest, fields[3] or agent} end
  end
end
if (may_raise and not found[1]) or (found[1] and number < FORMAT) or oldest < OLDEST_FORMAT then
  if not found[1] or number < FORMAT then redis.call('HSET', RECORD, 'version', version) end
  redis.call('HSET', RECORD, 'number', math.max(number, FORMAT), 'oldest', math.max(oldest, OLDEST_FORMAT))
end
return {'ok', math.max(number, FORMAT), math.max(oldest, OLDEST_FORMAT), version}
