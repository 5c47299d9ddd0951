-- Keys: turns, their losses, agents and the hashes of agents.
-- ARGV: now, holder, its agent id now ('' is none), its slots, lease (ms), all at once (0 or 1), the version of the
-- desired state that it changes to (0 is none), first pause (ms), longest pause (ms).
-- A holder changes its model, so its slots are away for a while. A turn that it has is prolonged; else it gets one if
-- at least half of the slots stay ready, or if nobody else is changing or loading: one alone cannot leave half.
-- A holder that was lost in its turn may have died of that version: nobody else is given a turn for it before a pause
-- is over, which doubles with every holder that is lost.
-- Returns 1 or 0.
local holder, agent, slots, lease, at_once = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local version, first_pause, longest_pause = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local turns, losses = P .. ':turns', P .. ':turns:lost'

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

-- Not by the entries above: they end with their key at the latest.
local told = redis.call('HGETALL', losses)
for at = 1, #told, 2 do
  local of = string.match(told[at], '^of:(.+)$')
  local expiry, what = string.match(told[at + 1], '^(%S+) (%S+)$')
  if of and of ~= holder and tonumber(expiry) <= now then
    redis.call('HDEL', losses, told[at])
    local count = (redis.call('HGET', losses, 'version') == what
      and tonumber(redis.call('HGET', losses, 'count')) or 0) + 1
    local pause = math.min(first_pause * 2 ^ math.min(count - 1, 20), longest_pause)
    redis.call('HSET', losses, 'version', what, 'count', count, 'until', string.format('%.3f', now + pause))
  end
end
local deadly, held_until = unpack(redis.call('HMGET', losses, 'version', 'until'))
if not has_turn and not at_once and deadly == version and now < tonumber(held_until) then return 0 end

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
if version ~= '0' then
  redis.call('HSET', losses, 'of:' .. holder, string.format('%.3f %s', now + lease, version))
  redis.call('PEXPIRE', losses, longest_pause + lease)
end
return 1
