-- Key map: that of common.lua, which comes before this part of every script.
-- Step 2, and whatever makes work: which agent for a request. Behind `choice.lua`, whose choice it is.

local NUM_TIES = 16
local NUM_ASKED = 16 -- of a thousand free agents not all can be asked whether they may take something

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

-- Of the live holders of an entry the freest, if it has a free slot; ties as `freest`, but to the lowest id. Redis
-- intersects the two sets: the number of holders costs little.
local function freest_holder(hash, hint)
  local ranked = redis.call('ZINTER', 2, FREE, holders_key(hash), 'WEIGHTS', 1, 0, 'WITHSCORES')
  local last, refused = #ranked - 1, {}
  while last > 0 do
    local first, best = last, nil
    while first > 1 and ranked[first - 1] == ranked[last + 1] do first = first - 2 end
    for at = first, last, 2 do
      local agent = ranked[at]
      if not refused[agent] and (not best or (hint ~= '' and prefers(hint, agent, best))) then best = agent end
    end
    if not best then
      last = first - 2
    elseif tonumber(redis.call('ZSCORE', holders_key(hash), best)) > now
      and refresh_free(best) >= tonumber(ranked[last + 1]) then
      return best
    else
      refused[best] = true
    end
  end
end

-- The live holder with a free slot of the deepest entry that has one, the freest of them, and tokens of the deepest
-- entry that any live agent holds, 0 when cold.
local function free_holder(prompt, hint)
  if not is_anything_held(prompt.hashes) then return nil, 0 end
  local look, longest = new_look(), 0
  for n = #prompt.hashes, 1, -1 do
    local is_match, matched = is_long_enough(prompt, n)
    if not is_match then break end
    if is_held(look, prompt.hashes[n]) then
      longest = math.max(longest, matched)
      local agent = freest_holder(prompt.hashes[n], hint)
      if agent then return agent, longest end
    end
  end
  return nil, longest
end

-- Whom else to ask when the freest agent may take nothing: the next freest, and who holds what has waited longest.
local function others(asked)
  local found, known = {}, {[asked] = true}
  local function add(agent)
    if agent and not known[agent] then
      known[agent] = true
      found[#found + 1] = agent
    end
  end
  for _, agent in ipairs(redis.call('ZREVRANGE', FREE, 0, NUM_ASKED)) do add(agent) end
  local look = new_look()
  for _, id in ipairs(redis.call('ZRANGE', AGE, 0, NUM_ASKED - 1)) do add((free_holder(facts_of(look, id), ''))) end
  return found
end

-- Give waiting tickets to free agents, one each, the freest first, until one side runs out. An agent that may
-- take none of what waits does not keep the others from theirs.
local function dispatch()
  while num_waiting() > 0 do
    local agent = freest()
    if not agent then return end
    local given, steal = claim_for(agent, 1)
    if given == 0 then
      for _, other in ipairs(others(agent)) do
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
