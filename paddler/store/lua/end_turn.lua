-- Keys: turns, their losses. ARGV: now, holder. Returns 1 if it had a turn, else 0.
-- One that comes to the end of its turn lives: what it changed to need not be what others were lost of.
local losses = P .. ':turns:lost'
if redis.call('HDEL', losses, 'of:' .. ARGV[2]) == 1 then redis.call('HDEL', losses, 'version', 'count', 'until') end
return redis.call('HDEL', P .. ':turns', ARGV[2])
