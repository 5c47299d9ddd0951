-- Step 10. Keys: agents, hash, lane and free of the agent; its requests; buffer, order, age, dead; what claim touches.
-- ARGV: now, agent, max deaths, final frame after too many deaths, final frame of a cancelled request, leaving (0 or 1).
-- Returns {tickets returned, requests failed}, or {-1, 0} while the agent lives (unless it says itself that it leaves).
local agent, max_deaths, dead_frame, cancel_frame = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local leaving = ARGV[6] == '1'
-- Of all deaths, fruitful ones among them, it takes so many times more.
local FRUITFUL_FACTOR = 3

if is_leased(agent) and not leaving then return {-1, 0} end
if not leaving and redis.call('EXISTS', agent_key(agent)) == 1 then count('reaped') end
local returned, failed = 0, 0
local kv_url = leaving and redis.call('HGET', agent_key(agent), 'kv_url') or ''
for _, entry in ipairs(redis.call('XRANGE', lane_key(agent), '-', '+')) do
  local id = entry[2][2]
  local key = request_key(id)
  local fields = redis.call('HMGET', key, 'state', 'cancel', 'opened', 'attempt', 'opened_at', 'fruitless')
  if fields[1] and not is_terminal(fields[1]) then
    local deaths = tonumber(redis.call('HGET', key, 'deaths') or '0')
    local fruitless = tonumber(fields[6] or '0')
    if not leaving and fields[3] == fields[4] then
      deaths = redis.call('HINCRBY', key, 'deaths', 1)
      count('deaths')
      -- Whoever has said something new since it was opened is hardly what killed the agent.
      if redis.call('STRLEN', journal_key(id)) <= tonumber(fields[5]) then
        fruitless = redis.call('HINCRBY', key, 'fruitless', 1)
        redis.call('SADD', MARKED, id)
      elseif fruitless > 0 then
        fruitless = 0
        redis.call('HDEL', key, 'fruitless')
      end
    end
    if fields[2] then
      redis.call('HINCRBY', key, 'attempt', 1)
      finish(id, 'cancelled', cancel_frame)
    elseif fruitless >= max_deaths or deaths >= FRUITFUL_FACTOR * max_deaths then
      redis.call('HINCRBY', key, 'attempt', 1)
      finish(id, 'failed', dead_frame)
      redis.call('EXPIRE', key, DEAD_KEEP_S)
      redis.call('EXPIRE', payload_key(id), DEAD_KEEP_S)
      redis.call('XADD', DEAD, 'MAXLEN', '~', MAX_DEAD, '*', 'id', id, 'deaths', deaths)
      count('dead')
      failed = failed + 1
    else
      if fields[3] == fields[4] then count('handed_over') end
      put_back(id)
      -- Whoever goes on with it finds its state there for a moment.
      if kv_url ~= '' then redis.call('HSET', key, 'kv_from', kv_url) end
      returned = returned + 1
    end
  end
end
for _, hash in ipairs(redis.call('SMEMBERS', held_key(agent))) do redis.call('ZREM', holders_key(hash), agent) end
forget_preempted(agent)
redis.call('DEL', lane_key(agent), agent_key(agent), held_key(agent))
redis.call('ZREM', AGENTS, agent)
redis.call('ZREM', FREE, agent)
dispatch()
return {returned, failed}
