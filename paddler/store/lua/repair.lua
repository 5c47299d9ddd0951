-- Step 12. Keys: request, journal, watchers.
-- ARGV: now, id, journal length as found, bytes that follow. A balancer has sent more than Redis remembers: write the
-- difference back, only at exactly that length. Returns {status, journal length}: 'ok', 'moved', 'ended' or 'gone'.
local id, length, frames = ARGV[2], tonumber(ARGV[3]), ARGV[4]

local state = redis.call('HGET', request_key(id), 'state')
if not state then return {'gone', 0} end
local found = redis.call('STRLEN', journal_key(id))
if is_terminal(state) then return {'ended', found} end
if found ~= length then return {'moved', found} end
append(id, frames)
-- It has begun, although Redis has forgotten that too.
redis.call('HSET', request_key(id), 'deadline', 0)
redis.call('ZREM', DEADLINES, id)
count('repaired')
return {'ok', length + #frames}
