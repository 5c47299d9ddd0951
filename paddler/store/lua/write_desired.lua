-- Keys: desired and desired:history, see desired_keys.py.
-- ARGV: now, the version that is to be there ('' for any), state, author, a token of this call, how many versions the
-- history keeps.
-- Makes `state` the pool's next version and tells who listens; one that is as it was stays that version.
-- Returns 1 and the version, or 0 and the version that is there instead of the expected one.
local expected, state, author, token = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local max_kept = tonumber(ARGV[6])
local DESIRED, HISTORY = P .. ':desired', P .. ':desired:history'
-- A call whose answer was lost is repeated within a second; so many changes do not come between.
local MAX_LOOKED_AT = 8

local found = redis.call('HMGET', DESIRED, 'version', 'state')
local version = tonumber(found[1] or 0)
local latest = redis.call('XREVRANGE', HISTORY, '+', '-', 'COUNT', MAX_LOOKED_AT)
for _, entry in ipairs(latest) do
  for at = 1, #entry[2], 2 do
    if entry[2][at] == 'token' and entry[2][at + 1] == token then
      return {1, tonumber(string.match(entry[1], '^%d+'))}
    end
  end
end
if expected ~= '' and tonumber(expected) ~= version then return {0, version} end
if found[2] == state then return {1, version} end
-- Never below what the history knows, also when somebody has deleted the hash.
if latest[1] then version = math.max(version, tonumber(string.match(latest[1][1], '^%d+'))) end
version = version + 1
local at_ms = string.format('%.0f', math.floor(now))
redis.call('HSET', DESIRED, 'version', version, 'state', state, 'updated_ms', at_ms, 'author', author)
redis.call('XADD', HISTORY, 'MAXLEN', max_kept, version .. '-0',
  'state', state, 'updated_ms', at_ms, 'author', author, 'token', token)
redis.call('PUBLISH', P .. ':desired:changed', version)
return {1, version}
