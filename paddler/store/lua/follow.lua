-- Step 13. Keys: balancers.
-- ARGV: now, balancer, lease (ms). Prolongs a balancer's lease; forgets those that ended long ago. Returns 1.
local balancer, lease = ARGV[2], tonumber(ARGV[3])

redis.call('ZADD', BALANCERS, now + lease, balancer)
redis.call('ZREMRANGEBYSCORE', BALANCERS, '-inf', now - KEEP_S * 1000)
return 1
