-- Key map: that of common.lua, which comes before this part of every script.
-- Step 2, and whatever makes work: which agent for a request. Behind `choice.lua`, whose choice it is.

local NUM_TIES = 16

local function prefers(hint, one, other)
  return redis.sha1hex(hint .. '\0' .. one) > redis.sha1hex(hint .. '\0' .. other)
end

-- The agent with the most free slots; ties by the hint's rendezvous hash (Thaler and Ravishankar 1998), else at
-- random. Whoever cannot take work is removed on the way.
local function freest(hint)
  while true do
    local top = redis.call('ZREVRANGE', FREE, 0, 0, 'WITHSCORES')
    if #top == 0 then return nil end
    local agent
    if hint and hint ~= '' then
      for _, tie in ipairs(redis.call('ZRANGEBYSCORE', FREE, top[2], top[2], 'LIMIT', 0, WINDOW)) do
        if not agent or prefers(hint, tie, agent) then agent = tie end
      end
    else
      local ties = redis.call('ZCOUNT', FREE, top[2], top[2])
      agent = redis.call('ZRANGEBYSCORE', FREE, top[2], top[2], 'LIMIT', micros % ties, 1)[1]
    end
    if refresh_free(agent) >= tonumber(top[2]) then return agent end
  end
end

-- Something is due for this agent in so many ms.
local function poke(agent, steal)
  if steal > 0 then redis.call('PUBLISH', control_key(agent), cmsgpack.pack({'poke', steal})) end
end

-- Give waiting tickets to free agents, one each, the freest first, until one side runs out. An agent that may
-- take none of what waits does not keep the others from theirs.
local function dispatch()
  while num_waiting() > 0 do
    local agent = freest()
    if not agent then return end
    local given, steal = claim_for(agent, 1)
    if given == 0 then
      for _, other in ipairs(redis.call('ZREVRANGE', FREE, 0, -1)) do
        if num_waiting() > 0 then
          local more, due = claim_for(other, 1)
          given = given + more
          if due > 0 and (steal == 0 or due < steal) then agent, steal = other, due end
        end
      end
      if given == 0 then
        poke(agent, steal)
        return
      end
    end
  end
end

-- The live holder with a free slot of the deepest entry that has one, the freest of them, and tokens of the deepest
-- entry that any live agent holds, 0 when cold.
local function free_holder(prompt, hint)
  if not is_anything_held(prompt.hashes) then return nil, 0 end
  local look, rooms, longest = new_look(), {}, 0
  for n = #prompt.hashes, 1, -1 do
    local is_match, matched = is_long_enough(prompt, n)
    if not is_match then break end
    local agent, most = nil, 0
    for _, holder in ipairs(holders_of(look, prompt.hashes[n])) do
      longest = math.max(longest, matched)
      -- Whoever holds a deep entry holds those above it: each is looked at once.
      rooms[holder] = rooms[holder] or refresh_free(holder)
      local room = rooms[holder]
      local is_tie = agent and room == most
      if is_tie and hint ~= '' then is_tie = prefers(hint, holder, agent) elseif is_tie then is_tie = holder < agent end
      if room > most or is_tie then agent, most = holder, room end
    end
    if agent then return agent, longest end
  end
  return nil, longest
end

-- A request that comes while nobody waits need not enter the buffer to be taken out again: the agent that `place_new`
-- would give it to, and by which rule; nil where that takes a longer look. `is_held`: somebody may hold its beginning.
local function place_at_once(prompt, hint, is_held)
  local agent, least, longest = nil, 1, 0
  if is_held then
    agent, longest = free_holder(prompt, hint)
    if longest > 0 and not agent then return nil end
  end
  if not agent then
    local top = redis.call('ZREVRANGE', FREE, 0, NUM_TIES - 1, 'WITHSCORES')
    local num_ties = 0
    while num_ties * 2 < #top and top[num_ties * 2 + 2] == top[2] do num_ties = num_ties + 1 end
    if num_ties == 0 or num_ties == NUM_TIES then return nil end
    agent, least = top[(micros % num_ties) * 2 + 1], tonumber(top[2])
    if hint ~= '' then
      for at = 1, num_ties do
        if prefers(hint, top[at * 2 - 1], agent) then agent = top[at * 2 - 1] end
      end
    end
  end
  local room, reserved, claims = num_free(agent)
  if reserved or room < least then return nil end
  local own = own_match(agent, prompt)
  -- Just arrived, it is left to whoever holds more of it.
  if longest > own then return nil end
  if (tonumber(claims or '0') + 1) % OLDEST_EVERY == 0 then return agent, 'oldest', room end
  if own > 0 then return agent, 'own', room end
  return agent, 'cold', room
end

-- Step 2: find an agent for a request that has just entered the buffer, by the same choice as claim: its holder, and
-- the freest if that takes nothing. Whoever may take it might have to take others first, so this goes on until it is
-- given or nobody is left who may take anything.
local function place_new(id, prompt, hint)
  while redis.call('HGET', request_key(id), 'state') == 'waiting' do
    local idle = freest(hint)
    if not idle then return end
    local given = 0
    local asked = {free_holder(prompt, hint) or idle, idle}
    if asked[1] == idle then asked[2] = nil end
    for _, agent in ipairs(asked) do
      if given == 0 then
        local steal
        given, steal = claim_for(agent, 1)
        poke(agent, steal)
        -- One that has just reserved a request is not free any more: the next may take what stands behind.
        if not redis.call('ZSCORE', FREE, agent) then given = 1 end
      end
    end
    if given == 0 then return end
  end
end
