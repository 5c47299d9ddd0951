-- Part of the library, behind common: which formats of keys and messages (`format.py`) work on a pool together.
-- Keys: format, a hash of the highest number that has worked here, the lowest that still may, and Paddler's version.
local FORMAT, OLDEST_FORMAT = @FORMAT@, @OLDEST_FORMAT@

-- Whether nobody has come whom this version could not work beside.
local function is_admitted() return tonumber(redis.call('HGET', RECORD, 'oldest') or '1') <= FORMAT end
