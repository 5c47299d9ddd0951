-- Batches. Keys: KEYS[1] is the hash of batches that have not ended, see `open_batches` of keys.py.
-- ARGV: now, batch id, its input file, tenant, number of lines, most batches of all, most batches of the tenant and most
-- lines of the tenant's batches (below 0: no bound).
-- Returns {'ok'}, {'full', batches}, {'batches', batches of the tenant} or {'lines', lines of the tenant}.
local OPEN, id, file, tenant = KEYS[1], ARGV[2], ARGV[3], ARGV[4]
local lines = tonumber(ARGV[5])
local max_all, max_batches, max_lines = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

if redis.call('HEXISTS', OPEN, id) == 1 then return {'ok'} end
local all = redis.call('HVALS', OPEN)
if #all >= max_all then return {'full', #all} end
local own, own_lines = 0, 0
for _, value in ipairs(all) do
  local its, num = string.match(value, '^%S+ (%S+) (%d+)$')
  if its == tenant then
    own = own + 1
    own_lines = own_lines + tonumber(num)
  end
end
if max_batches >= 0 and own >= max_batches then return {'batches', own} end
if max_lines >= 0 and own_lines + lines > max_lines then return {'lines', own_lines} end
redis.call('HSET', OPEN, id, file .. ' ' .. tenant .. ' ' .. lines)
return {'ok'}
