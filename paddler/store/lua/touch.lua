-- Keys: request, journal, response, kept:age.
-- ARGV: now, TTL (s), ids. A conversation goes on: its stored responses are kept for so long from now on.
-- Returns how many of them are there.
local ttl, num = tonumber(ARGV[2]), 0
for index = 3, #ARGV do
  local id = ARGV[index]
  if redis.call('EXISTS', response_key(id)) == 1 then
    num = num + 1
    local state = redis.call('HGET', request_key(id), 'state')
    if state and is_terminal(state) then keep_until(id, ttl) end
    redis.call('ZADD', KEPT_BY_AGE, 'XX', now, id)
  end
end
return num
