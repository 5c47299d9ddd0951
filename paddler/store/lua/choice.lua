-- Key map: that of common.lua, which comes before this part of every script.
-- Steps 2 and 4: which agent for a request, which request for an agent. `paddler/routing/policy.py` is the same
-- choice as a pure function, and a test holds the two together.

local WINDOW = 64
local MATCH_DIVISOR = 10 -- a match counts from a tenth of the prompt
local OLDEST_EVERY = 8
local NUM_TIES = 16
local PROMOTE_LOOK = 16
local PROMOTIONS = {{'normal', 'interactive', 30000}, {'batch', 'normal', 120000}} -- from, to, after so many ms
local DEFAULT_PREFILL = 500 -- tokens/s, until an agent has measured its own

-- A packed prefix chain: per entry 11 characters of hash and the prompt tokens it covers (>I4), shallow first.
local function unpack_chain(packed)
  local hashes, ends = {}, {}
  for at = 1, #packed, 15 do
    hashes[#hashes + 1] = string.sub(packed, at, at + 10)
    ends[#ends + 1] = struct.unpack('>I4', packed, at + 11)
  end
  return hashes, ends
end

local function is_long_enough(matched, tokens) return matched > 0 and matched * MATCH_DIVISOR >= tokens end

-- Tokens of the deepest entry that this agent holds; 0 for less than a tenth of the prompt.
local function own_match(agent, hashes, ends, tokens)
  if #hashes == 0 then return 0 end
  local members = redis.call('SMISMEMBER', held_key(agent), unpack(hashes))
  for at = #hashes, 1, -1 do
    if not is_long_enough(ends[at], tokens) then return 0 end
    if members[at] == 1 then return ends[at] end
  end
  return 0
end

-- Whether anybody holds, or has held, an entry: one look where there is nothing to find.
local function is_anything_held(hashes)
  local names = {}
  for at = 1, #hashes do names[at] = holders_key(hashes[at]) end
  return #names > 0 and redis.call('EXISTS', unpack(names)) > 0
end

-- The live holders of the deepest entry that any agent but `except` holds, and its tokens; {} and 0 when cold.
local function foreign_match(except, hashes, ends, tokens)
  if not is_anything_held(hashes) then return {}, 0 end
  for at = #hashes, 1, -1 do
    if not is_long_enough(ends[at], tokens) then break end
    local live = {}
    for _, agent in ipairs(redis.call('ZRANGEBYSCORE', holders_key(hashes[at]), '(' .. now, '+inf')) do
      if agent ~= except and is_leased(agent) then live[#live + 1] = agent end
    end
    if #live > 0 then return live, ends[at] end
  end
  return {}, 0
end

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

-- Whether a promoted request of this tenant waits in a class still.
local function has_promoted(class, tenant)
  local id = redis.call('GET', promoted_key(class, tenant))
  if not id then return false end
  local fields = redis.call('HMGET', request_key(id), 'state', 'queue')
  return fields[1] == 'waiting' and fields[2] == class
end

-- Where a class is starved by a higher one, what is next in it and has been in it for long enough moves up, as a
-- newcomer of its tenant there: one of each tenant at a time. Leaving is service by the class it leaves.
local function promote()
  local oldest = redis.call('ZRANGE', AGE, 0, 0, 'WITHSCORES')[2]
  if not oldest or now - tonumber(oldest) < PROMOTIONS[1][3] then return end
  for _, promotion in ipairs(PROMOTIONS) do
    local from, to, after = unpack(promotion)
    local is_taken = {}
    for _, id in ipairs(redis.call('ZRANGE', order_key(from), 0, PROMOTE_LOOK - 1)) do
      local key = request_key(id)
      local fields = redis.call('HMGET', key, 'since', 'accepted', 'tenant', 'cost', 'weight', 'start')
      local tenant = fields[3]
      if now - tonumber(fields[1] or fields[2] or now) < after then break end
      if is_taken[tenant] == nil then is_taken[tenant] = has_promoted(to, tenant) end
      if not is_taken[tenant] then
        is_taken[tenant] = true
        advance(from, tonumber(fields[6]))
        local start, score = charge(to, tenant, tonumber(fields[4]), tonumber(fields[5]))
        redis.call('ZREM', order_key(from), id)
        redis.call('ZADD', order_key(to), score, id)
        -- From now on this is its place, also when it comes back from a lane.
        redis.call('HSET', key, 'queue', to, 'score', score, 'start', start, 'since', now)
        redis.call('SET', promoted_key(to, tenant), id, 'EX', TAG_KEEP_S)
        count('promoted')
      end
    end
  end
end

local function window()
  local ids = {}
  for _, class in ipairs(CLASSES) do
    if #ids < WINDOW then
      for _, id in ipairs(redis.call('ZRANGE', order_key(class), 0, WINDOW - #ids - 1)) do ids[#ids + 1] = id end
    end
  end
  return ids
end

-- A suspect that is reserved by another live agent is nobody else's; what this agent had to give up for want of room
-- is not its own again yet.
local function is_barred(agent, fruitless, suitor, avoid)
  if avoid == agent then return true end
  return suitor and suitor ~= agent and is_suspect(fruitless) and is_leased(suitor)
end

-- The next request for this agent: its id and by which rule, or nil and the ms until one may be stolen (0: none).
local function choose(agent)
  local facts = redis.call('HMGET', agent_key(agent), 'claims', 'prefill')
  if (tonumber(facts[1] or '0') + 1) % OLDEST_EVERY == 0 then
    for _, id in ipairs(redis.call('ZRANGE', AGE, 0, WINDOW - 1)) do
      local fields = redis.call('HMGET', request_key(id), 'fruitless', 'suitor', 'avoid')
      if not is_barred(agent, fields[1], fields[2], fields[3]) then return id, 'oldest' end
    end
  end
  local prefill = tonumber(facts[2] or '0')
  if prefill <= 0 then prefill = DEFAULT_PREFILL end
  local holds = redis.call('EXISTS', held_key(agent)) == 1
  local best, most, others = nil, 0, {}
  for _, id in ipairs(window()) do
    local fields = redis.call('HMGET', request_key(id), 'fruitless', 'suitor', 'avoid', 'chain', 'tokens', 'accepted')
    if not is_barred(agent, fields[1], fields[2], fields[3]) then
      local hashes, ends = unpack_chain(fields[4] or '')
      local tokens = tonumber(fields[5] or '0')
      local matched = 0
      if holds then matched = own_match(agent, hashes, ends, tokens) end
      if matched > most then best, most = id, matched end
      -- The usual case without affinity; one before it that has a chain may be cold too.
      if #hashes == 0 and #others == 0 and not holds then return id, 'cold' end
      others[#others + 1] = {id, hashes, ends, tokens, tonumber(fields[6])}
    end
  end
  if best then return best, 'own' end
  local steal, hint = nil, 0
  for _, other in ipairs(others) do
    local holders, matched = foreign_match(agent, other[2], other[3], other[4])
    if #holders == 0 then return other[1], 'cold' end
    -- Rounded up as a whole: Redis cuts an answer of 0.4 ms to 0, which would mean that there is nothing to wait for.
    local left = math.ceil(other[5] + math.floor(matched * 1000 / prefill) + 1 - now)
    if left <= 0 then
      steal = steal or other[1]
    elseif hint == 0 or left < hint then
      hint = left
    end
  end
  if steal then return steal, 'stolen' end
  return nil, hint
end

-- The waiting request that this agent keeps its lane for. One that is gone (Redis may forget a second) binds nobody.
local function reservation(agent)
  local id = redis.call('HGET', agent_key(agent), 'reserved')
  if not id then return nil end
  local fields = redis.call('HMGET', request_key(id), 'state', 'suitor')
  if fields[1] == 'waiting' and fields[2] == agent then return id end
  redis.call('HDEL', agent_key(agent), 'reserved')
end

-- Step 4: fill up to `limit` free slots of one agent. Returns how many tickets it was given, and the ms until
-- something may be stolen (0: nothing to wait for).
local function claim_for(agent, limit)
  local waiting = num_waiting()
  if waiting == 0 then
    local room, kept = num_free(agent)
    if not kept then
      set_free(agent, room)
      return 0, 0
    end
  end
  local reserved = reservation(agent)
  if reserved then
    if num_free(agent) == 0 or redis.call('XLEN', lane_key(agent)) > 0 then return 0, 0 end
    give(agent, reserved)
    count('claimed_reserved')
    refresh_free(agent)
    return 1, 0
  end
  local room = math.min(refresh_free(agent), limit)
  if room == 0 or waiting == 0 then return 0, 0 end
  local given, hint = 0, 0
  promote()
  while given < room do
    local id, how = choose(agent)
    if not id then
      hint = how
      break
    end
    local wants_lane = is_suspect(redis.call('HGET', request_key(id), 'fruitless'))
    if wants_lane and redis.call('XLEN', lane_key(agent)) > 0 then
      -- It wants a lane of its own: this agent claims nothing else until it can take it.
      redis.call('HSET', request_key(id), 'suitor', agent)
      redis.call('HSET', agent_key(agent), 'reserved', id)
      refresh_free(agent)
      return given, 0
    end
    give(agent, id)
    count('claimed_' .. how)
    given = given + 1
    if wants_lane then break end
  end
  if given > 0 then refresh_free(agent) end
  return given, hint
end

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
        if num_waiting() > 0 then given = given + claim_for(other, 1) end
      end
      if given == 0 then
        poke(agent, steal)
        return
      end
    end
  end
end

-- The live holder with a free slot of the deepest entry that has one, the freest of them, and whether any agent holds
-- the request at all.
local function free_holder(hashes, ends, tokens, hint)
  if not is_anything_held(hashes) then return nil, false end
  local rooms, is_held = {}, false
  for at = #hashes, 1, -1 do
    if not is_long_enough(ends[at], tokens) then break end
    local agent, most = nil, 0
    for _, holder in ipairs(redis.call('ZRANGEBYSCORE', holders_key(hashes[at]), '(' .. now, '+inf')) do
      if is_leased(holder) then
        is_held = true
        -- Whoever holds a deep entry holds those above it: each is looked at once.
        rooms[holder] = rooms[holder] or refresh_free(holder)
        local room = rooms[holder]
        local is_tie = agent and room == most
        if is_tie and hint ~= '' then is_tie = prefers(hint, holder, agent) elseif is_tie then is_tie = holder < agent end
        if room > most or is_tie then agent, most = holder, room end
      end
    end
    if agent then return agent, true end
  end
  return nil, is_held
end

-- A request that comes while nobody waits need not enter the buffer to be taken out again: the agent that `place_new`
-- would give it to, and by which rule; nil where that takes a longer look. `is_held`: somebody may hold its beginning.
local function place_at_once(hashes, ends, tokens, hint, is_held)
  local agent, least = nil, 1
  if is_held then
    agent, is_held = free_holder(hashes, ends, tokens, hint)
    if is_held and not agent then return nil end
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
  local is_own = own_match(agent, hashes, ends, tokens) > 0
  if is_held and not is_own then return nil end
  if (tonumber(claims or '0') + 1) % OLDEST_EVERY == 0 then return agent, 'oldest', room end
  if is_own then return agent, 'own', room end
  return agent, 'cold', room
end

-- Step 2: find an agent for a request that has just entered the buffer, by the same choice as claim. Whoever may take
-- it might have to take others first, so this goes on until it is given or nobody is left who may take anything.
local function place_new(id, chain, tokens, hint)
  local hashes, ends = unpack_chain(chain)
  while redis.call('HGET', request_key(id), 'state') == 'waiting' do
    local agent = freest(hint)
    if not agent then return end
    agent = free_holder(hashes, ends, tokens, hint) or agent
    local given, steal = claim_for(agent, 1)
    -- One that has just reserved a request is not free any more: the next may take what stands behind.
    if given == 0 and redis.call('ZSCORE', FREE, agent) then return poke(agent, steal) end
  end
end
