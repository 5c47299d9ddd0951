-- Step 6. Keys: request, journal, watchers of each item; hash, lane and free of the agent.
-- ARGV: now, agent, then per item: id, attempt, journal offset, frames. Returns {status, journal length} per item.
local agent = ARGV[2]

local answers, solo = {}, redis.call('HGET', agent_key(agent), 'solo')
for at = 3, #ARGV, 4 do
  local id, attempt, offset, frames = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local status, state, first = fence(id, agent, attempt, 'state', 'first')
  local length = 0
  if status == 'ok' then
    status, length = place(id, offset, frames)
    if status == 'ok' then
      append(id, frames)
      if not first and frames ~= SIGN_OF_LIFE then redis.call('HSET', request_key(id), 'first', now) end
      if state == 'assigned' then
        -- Redis has forgotten that it was opened (step 12).
        redis.call('HSET', request_key(id), 'state', 'running', 'opened', attempt, 'opened_at', offset, 'started', now,
          'deadline', 0)
        redis.call('HINCRBY', request_key(id), 'opens', 1)
      end
      length = offset + #frames
      -- A suspect has survived its first new frame: the lane is open to others again.
      if solo == id then
        end_solo(agent, id)
        claim_for(agent, 1000000)
      end
    elseif status == 'repeated' then
      status = 'ok'
    end
  end
  answers[#answers + 1] = status
  answers[#answers + 1] = length
end
return answers
