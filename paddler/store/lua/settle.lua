-- Step 7. Keys: request, payload, journal, watchers, demand, tag; lane, free and hash of the agent; what claim touches.
-- ARGV: now, agent, id, attempt, journal offset, final frames, outcome, prompt tokens, completion tokens, cached tokens.
-- Returns {status, journal length, tickets claimed, ms until something may be stolen}.
local agent, id, attempt, offset, frames = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local outcome, prompt_tokens, completion_tokens, cached_tokens = ARGV[7], ARGV[8], ARGV[9], ARGV[10]

local fields = redis.call('HMGET', request_key(id), 'state', 'agent', 'attempt', 'entry', 'tenant', 'cost', 'weight',
  'class', 'demand', 'fruitless', 'queue', 'first')
if not fields[1] then return {'gone', 0, 0, 0} end
if fields[2] ~= agent or tonumber(fields[3]) ~= attempt then
  count('fenced')
  return {'fenced', 0, 0, 0}
end
if is_terminal(fields[1]) then return {'ok', offset + #frames, 0, 0} end
local status, length = place(id, offset, frames)
if status == 'short' or status == 'long' then return {status, length, 0, 0} end
if status == 'repeated' then frames = '' end

leave_lane(agent, fields[4])
-- The tenant was charged an estimate; from now on it stands where puts it what was computed, however it ended.
local real = tonumber(prompt_tokens) - tonumber(cached_tokens) + tonumber(completion_tokens)
-- What says all at its end has its first token then.
if not fields[12] and tonumber(completion_tokens) > 0 then redis.call('HSET', request_key(id), 'first', now) end
correct(fields[11], fields[5], real - tonumber(fields[6]), tonumber(fields[7]))
finish(id, outcome, frames, fields[8], fields[9], 'prompt_tokens', prompt_tokens,
  'completion_tokens', completion_tokens, 'cached_tokens', cached_tokens)
if is_suspect(fields[10]) then end_solo(agent, id) end
forget_preempted(agent)
local given, hint = claim_for(agent, 1000000)
return {'ok', length + #frames, given, hint}
