-- Keys: prefixes, prefixes:contents and prefixes:hits, see prefix_keys.py.
-- ARGV: now, name.
-- Forgets a pinned prefix, if there is one of this name, and tells who listens. The last version stays: none is given twice.
-- Returns 1.
local name = ARGV[2]

if redis.call('HDEL', P .. ':prefixes', name) == 1 then
  redis.call('HDEL', P .. ':prefixes:contents', name)
  redis.call('HDEL', P .. ':prefixes:hits', name)
  redis.call('PUBLISH', P .. ':prefixes:changed', 0)
end
return 1
