-- Step 8. Keys: request, watchers, journal.
-- ARGV: now, id, inbox, journal offset. Adds the inbox to the watchers of an unfinished request.
-- Returns {state, journal from the offset on}, or {'gone'}.
local id, inbox, offset = ARGV[2], ARGV[3], tonumber(ARGV[4])

local state = redis.call('HGET', request_key(id), 'state')
if not state then return {'gone'} end
if not is_terminal(state) then redis.call('SADD', watchers_key(id), inbox) end
return {state, redis.call('GETRANGE', journal_key(id), offset, -1)}
