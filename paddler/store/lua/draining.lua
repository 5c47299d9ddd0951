-- Key map: that of common.lua, which comes before this part of every script.
-- Step 11: an agent that takes no more. Behind `place.lua`, as what it gives back may be for others.

-- How long what an operator asked of a process outlives the last renewal of its lease, seconds.
local WISH_KEEP_S = 86400

-- What an operator asked of a process, whatever id it registers under: 'drain' or 'remove'.
local function drained_key(process) return P .. ':drained:' .. process end

local function keep_wish(process, wish)
  if process then redis.call('SET', drained_key(process), wish, 'EX', WISH_KEEP_S) end
end

-- Tickets not begun go back to their old places, what runs goes on. The caller has noted why the agent takes no more.
-- Returns how many still run.
local function take_back(agent)
  local reserved = redis.call('HGET', agent_key(agent), 'reserved')
  if reserved then end_reservation(reserved) end
  refresh_free(agent)
  for _, entry in ipairs(redis.call('XRANGE', lane_key(agent), '-', '+')) do
    local id = entry[2][2]
    if redis.call('HGET', request_key(id), 'state') == 'assigned' then
      leave_lane(agent, entry[1])
      end_solo(agent, id)
      put_back(id)
    end
  end
  local num_running = redis.call('XLEN', lane_key(agent))
  -- Nothing runs that could end: what it had to give up would avoid it for ever, should it take work again.
  if num_running == 0 then forget_preempted(agent) end
  dispatch()
  return num_running
end
