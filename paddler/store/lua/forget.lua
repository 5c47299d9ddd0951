-- Keys: request, journal, payload, response, kept, kept:age.
-- ARGV: now, id. Forgets a stored response, and all of its request if that has ended; else the rest goes by its TTL.
-- Returns 1, or 0 when none was stored under this id.
local id = ARGV[2]

local state = redis.call('HGET', request_key(id), 'state')
return forget_response(id, state and is_terminal(state))
