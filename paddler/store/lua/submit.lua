-- Step 2. Keys: request, payload, watchers, demand, buffer, order, age, deadlines, vtime; lane and free of the agent chosen.
-- ARGV: now, id, class, tenant, payload, inbox, start timeout (ms, 0 none), max waiting. Returns {status, position}.
local id, class, tenant, payload, inbox = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local start_timeout, max_waiting = tonumber(ARGV[7]), tonumber(ARGV[8])

local key = request_key(id)
if redis.call('EXISTS', key) == 1 then return {'known', 0} end
local waiting = redis.call('ZCARD', order_key(class))
if class ~= 'batch' then waiting = redis.call('ZCARD', order_key('interactive')) + redis.call('ZCARD', order_key('normal')) end
if waiting >= max_waiting and not freest() then return {'full', waiting} end

local score = redis.call('INCR', VTIME)
local deadline = 0
if start_timeout > 0 then deadline = now + start_timeout end
local entry = redis.call('XADD', demand_key(class), '*', 'id', id)
redis.call('HSET', key, 'class', class, 'tenant', tenant, 'accepted', now, 'deadline', deadline, 'score', score,
  'demand', entry, 'attempt', 0)
redis.call('SET', payload_key(id), payload)
redis.call('SADD', watchers_key(id), inbox)
enter_buffer(id, class, score, now, deadline)
dispatch()
local position = redis.call('ZRANK', order_key(class), id)
if position then return {'waiting', position} end
return {'assigned', 0}
