-- Keys: dead, request, payload, journal, watchers.
-- ARGV: now, id. Forgets a dead letter: what it keeps of the request ends as that of any other finished one.
-- Returns 1, or 0 when there is no such dead letter.
local id = ARGV[2]

local letter = find_letter(id)
if not letter then return 0 end
redis.call('XDEL', DEAD, letter)
redis.call('DEL', payload_key(id))
redis.call('HDEL', request_key(id), 'requeued')
redis.call('EXPIRE', request_key(id), KEEP_S, 'LT')
count('dropped')
return 1
