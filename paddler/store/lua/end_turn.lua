-- Keys: turns. ARGV: now, holder. Returns 1 if it had a turn, else 0.
return redis.call('HDEL', P .. ':turns', ARGV[2])
