-- Upkeep of the names of models. Keys: agents and their hashes, models, served.
-- ARGV: now, grace (ms), time (s), most names, then names that the desired state gives. Returns {names that were dropped}.
-- A name goes once nobody has served or given it for the grace time, while others were. Where nothing is served at all
-- (the fleet has scaled to zero) nothing gets older: what was served last brings it back.
local grace, seen, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

for _, agent in ipairs(redis.call('ZRANGEBYSCORE', AGENTS, now, '+inf')) do
  local model = redis.call('HGET', agent_key(agent), 'model')
  if model and model ~= '' then
    redis.call('HSETNX', MODELS, model, seen)
    redis.call('ZADD', SERVED, now, model)
  end
end
for at = 5, #ARGV do
  if redis.call('HEXISTS', MODELS, ARGV[at]) == 1 then redis.call('ZADD', SERVED, now, ARGV[at]) end
end
-- Those of a version that did not note when.
for _, name in ipairs(redis.call('HKEYS', MODELS)) do redis.call('ZADD', SERVED, 'NX', now, name) end
local newest = redis.call('ZREVRANGE', SERVED, 0, 0, 'WITHSCORES')
if not newest[1] then return {} end
local dropped = redis.call('ZRANGEBYSCORE', SERVED, '-inf', '(' .. (newest[2] - grace))
for _, name in ipairs(dropped) do drop_model(name) end
for _, name in ipairs(bound_models(most)) do dropped[#dropped + 1] = name end
return dropped
