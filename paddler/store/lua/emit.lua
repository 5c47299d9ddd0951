-- Step 6. Keys: request, journal, watchers of each item; hash, lane and free of the agent.
-- ARGV: now, agent, then per item: id, attempt, journal offset, frames. Returns {status, journal length} per item.
local agent = ARGV[2]

local answers, solo = {}, redis.call('HGET', agent_key(agent), 'solo')
for at = 3, #ARGV, 4 do
  local id, attempt, offset, frames = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local status, length = fence(id, agent, attempt), 0
  if status == 'ok' then
    status, length = place(id, offset, frames)
    if status == 'ok' then
      append(id, frames)
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
