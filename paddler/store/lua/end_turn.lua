-- Keys: turns, their losses. ARGV: now, holder. Returns 1 if it had a turn, else 0.
-- One that comes to the end of its turn lives: what it changed to need not be what others were lost of.
local losses = P .. ':turns:lost'
-- Also where its own entry was counted as a loss, because Redis was away for longer than its lease.
redis.call('HDEL', losses, 'of:' .. ARGV[2], 'version', 'count', 'until')
return redis.call('HDEL', P .. ':turns', ARGV[2])
