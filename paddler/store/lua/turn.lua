-- Keys: turns, agents and the hashes of agents.
-- ARGV: now, holder, its agent id now ('' is none), its slots, lease (ms), all at once (0 or 1).
-- A holder changes its model, so its slots are away for a while. A turn that it has is prolonged; else it gets one if
-- at least half of the slots stay ready, or if nobody else is changing or loading: one alone cannot leave half.
-- Returns 1 or 0.
local holder, agent, slots, lease, at_once = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local turns = P .. ':turns'

local changing, others, is_changing, has_turn = 0, 0, {[agent] = true}, false
local entries = redis.call('HGETALL', turns)
for at = 1, #entries, 2 do
  local expiry, size, who = string.match(entries[at + 1], '^(%S+) (%d+) (%S*)$')
  if tonumber(expiry) <= now then
    redis.call('HDEL', turns, entries[at])
  elseif entries[at] == holder then
    has_turn = true
  else
    changing = changing + tonumber(size)
    others = others + 1
    is_changing[who] = true
  end
end

if not has_turn and not at_once then
  local ready, coming = 0, 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', AGENTS, '(' .. now, '+inf')) do
    if not is_changing[id] then
      local fields = redis.call('HMGET', agent_key(id), 'state', 'slots', 'desired_slots', 'drain')
      if fields[4] then
        -- An operator has drained it: it serves nobody, now and when it is back.
      elseif fields[1] == 'ready' then
        ready = ready + tonumber(fields[2] or '0')
      elseif fields[1] == 'loading' then
        coming = coming + tonumber(fields[3] or '0')
      end
    end
  end
  local is_alone = others == 0 and coming == 0
  if not is_alone and ready * 2 < ready + coming + changing + slots then return 0 end
end

redis.call('HSET', turns, holder, string.format('%.3f %d %s', now + lease, slots, agent))
redis.call('PEXPIRE', turns, math.max(lease, redis.call('PTTL', turns)))
return 1
