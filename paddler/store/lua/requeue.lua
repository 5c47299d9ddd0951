-- Keys: dead, request, payload, journal, watchers, demand, vtime, tag; what entering the buffer and claim touch.
-- ARGV: now, id. A dead letter begins a new life under its id: no deaths, an empty journal, no start deadline, and in
-- the background, because nobody follows it. The fence goes on, so a zombie of its former life stays out.
-- Returns 'requeued', 'gone' (Redis keeps it no longer), or 'not_dead'.
local id = ARGV[2]

local key = request_key(id)
local letter = find_letter(id)
if not letter then
  if redis.call('HEXISTS', key, 'requeued') == 1 then return 'requeued' end
  return 'not_dead'
end
local fields = redis.call('HMGET', key, 'tenant', 'class', 'cost', 'weight')
if not fields[1] or redis.call('EXISTS', payload_key(id)) == 0 then return 'gone' end
local tenant, class, cost = fields[1], fields[2], tonumber(fields[3])
redis.call('XDEL', DEAD, letter)
redis.call('DEL', journal_key(id), watchers_key(id))
redis.call('PERSIST', key)
redis.call('PERSIST', payload_key(id))
redis.call('HDEL', key, 'deaths', 'fruitless', 'opened', 'opens', 'started', 'delivered', 'ended', 'agent', 'cancel', 'avoid', 'suitor',
  'orphaned', 'abandoned', 'since', 'first', 'returned', 'returns', 'prompt_tokens', 'completion_tokens', 'cached_tokens')
local start, score = charge(class, tenant, cost, tonumber(fields[4]))
local entry = redis.call('XADD', demand_key(class), '*', 'id', id)
redis.call('HSET', key, 'accepted', now, 'deadline', 0, 'score', score, 'start', start, 'demand', entry,
  'background', 1, 'requeued', now)
redis.call('SADD', MARKED, id)
redis.call('HINCRBY', key, 'attempt', 1)
enter_buffer(id, 'background', tenant, class, score, now, 0, cost)
count('requeued')
dispatch()
return 'requeued'
