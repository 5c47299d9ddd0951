-- Part of the library, behind common: the names of models that agents of a pool serve or have served.
-- Keys: models (name -> first seen), served (name by when it was last).

local function drop_model(name)
  redis.call('HDEL', MODELS, name)
  redis.call('ZREM', SERVED, name)
end

-- Drops those that were served longest ago, until there are no more than that. Returns them.
local function bound_models(most)
  local over = redis.call('ZCARD', SERVED) - most
  if over <= 0 then return {} end
  local dropped = redis.call('ZRANGE', SERVED, 0, over - 1)
  for _, name in ipairs(dropped) do drop_model(name) end
  return dropped
end
