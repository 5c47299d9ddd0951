-- Step 7. Keys: request, payload, journal, watchers, demand; lane, free and hash of the agent; what claim touches.
-- ARGV: now, agent, id, attempt, journal offset, final frames, outcome, prompt tokens, completion tokens, cached tokens.
-- Returns {status, journal length, tickets claimed}.
local agent, id, attempt, offset, frames = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local outcome = ARGV[7]

local key = request_key(id)
local fields = redis.call('HMGET', key, 'state', 'agent', 'attempt', 'entry')
if not fields[1] then return {'gone', 0, 0} end
if fields[2] ~= agent or tonumber(fields[3]) ~= attempt then return {'fenced', 0, 0} end
if is_terminal(fields[1]) then return {'ok', offset + #frames, 0} end
local status, length = place(id, offset, frames)
if status == 'short' or status == 'long' then return {status, length, 0} end
if status == 'repeated' then frames = '' end

leave_lane(agent, fields[4])
redis.call('HSET', key, 'prompt_tokens', ARGV[8], 'completion_tokens', ARGV[9], 'cached_tokens', ARGV[10])
finish(id, outcome, frames)
if redis.call('HGET', agent_key(agent), 'solo') == id then redis.call('HDEL', agent_key(agent), 'solo') end
return {'ok', redis.call('STRLEN', journal_key(id)), claim_for(agent, 1000000)}
