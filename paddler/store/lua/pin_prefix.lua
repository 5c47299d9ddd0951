-- Keys: prefixes, prefixes:contents and prefixes:hits, see prefix_keys.py.
-- ARGV: now, name, digest of what it is and for whom, record, content, how many there may be.
-- Pins a prefix under its name, in place of another one, and tells who listens; one that is as it was stays that version.
-- Returns 'new', 'changed' or 'same' and its version, or 'full' and 0.
local name, digest, record, content = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local max = tonumber(ARGV[6])
local PREFIXES = P .. ':prefixes'

local found = redis.call('HGET', PREFIXES, name)
if found then
  local version, known = string.match(found, '^(%d+) (%S+) ')
  if known == digest then return {'same', tonumber(version)} end
elseif redis.call('HLEN', PREFIXES) > max then
  return {'full', 0}  -- one field is the last version
end
local version = redis.call('HINCRBY', PREFIXES, '', 1)
redis.call('HSET', PREFIXES, name, version .. ' ' .. digest .. ' ' .. record)
redis.call('HSET', P .. ':prefixes:contents', name, content)
redis.call('HDEL', P .. ':prefixes:hits', name)
redis.call('PUBLISH', P .. ':prefixes:changed', version)
return {found and 'changed' or 'new', version}
