-- Key map: that of common.lua, which comes before this part of every script.
-- Steps 2 and 4: which agent for a request, which request for an agent. `paddler/routing/policy.py` is the same
-- choice as a pure function, and a test holds the two together.

local WINDOW = 64
local MATCH_DIVISOR = 10 -- a match counts from a tenth of the prompt
local OLDEST_EVERY = 8
local NUM_TIES = 16
local PROMOTE_LOOK = 16
local PROMOTIONS = {{'normal', 'interactive', 30000}, {'batch', 'normal', 120000}} -- from, to, after so many ms
local CHUNK = 1000 -- arguments of one command: Lua's stack ends at 8,000
local DEFAULT_PREFILL = 500 -- tokens/s, until an agent has measured its own

-- A packed prefix chain: per entry 11 characters of hash and the prompt tokens it covers (>I4), shallow first.
local ENTRY, HASH = 15, 11
local NOBODY = {}

-- A prompt: its chain, the hashes of that, and its tokens.
local function new_prompt(chain, tokens)
  local hashes = {}
  for at = 1, #chain, ENTRY do hashes[#hashes + 1] = string.sub(chain, at, at + HASH - 1) end
  return {chain = chain, hashes = hashes, tokens = tokens}
end

-- Tokens of the n-th entry.
local function end_of(prompt, n) return (struct.unpack('>I4', prompt.chain, n * ENTRY - 3)) end

local function is_long_enough(prompt, n)
  local matched = end_of(prompt, n)
  return matched > 0 and matched * MATCH_DIVISOR >= prompt.tokens, matched
end

-- What one script call has looked up: each thing once, whatever asks for it and however often.
local function new_look() return {facts = {}, own = {}, live = {}, leased = {}} end

-- A waiting request, as far as a choice needs it: a prompt with more fields.
local function facts_of(look, id)
  local facts = look.facts[id]
  if facts then return facts end
  local fields = redis.call('HMGET', request_key(id), 'fruitless', 'suitor', 'avoid', 'chain', 'tokens', 'accepted')
  facts = new_prompt(fields[4] or '', tonumber(fields[5] or '0'))
  facts.id, facts.is_suspect, facts.suitor, facts.avoid = id, is_suspect(fields[1]), fields[2], fields[3]
  facts.accepted = tonumber(fields[6] or '0')
  look.facts[id] = facts
  return facts
end

-- Add the hashes that are not in `known` yet to a list.
local function add_unknown(list, known, hashes)
  for _, hash in ipairs(hashes) do
    if known[hash] == nil then
      known[hash] = false
      list[#list + 1] = hash
    end
  end
end

-- Note which of these an agent holds, in as few calls as Lua's stack allows.
local function look_up_own(look, agent, hashes)
  for first = 1, #hashes, CHUNK do
    local last = math.min(first + CHUNK - 1, #hashes)
    for n, member in ipairs(redis.call('SMISMEMBER', held_key(agent), unpack(hashes, first, last))) do
      if member == 1 then look.own[hashes[first + n - 1]] = true end
    end
  end
end

-- Tokens of the deepest entry of which `own` is true; 0 for less than a tenth of the prompt.
local function deepest(own, prompt)
  for n = #prompt.hashes, 1, -1 do
    if own[prompt.hashes[n]] then
      local is_match, matched = is_long_enough(prompt, n)
      return is_match and matched or 0
    end
  end
  return 0
end

local function own_match(agent, prompt)
  local look = new_look()
  look_up_own(look, agent, prompt.hashes)
  return deepest(look.own, prompt)
end

-- Whether anybody holds, or has held, one of these: one look where there is nothing to find.
local function is_anything_held(hashes)
  for first = 1, #hashes, CHUNK do
    local names = {}
    for at = first, math.min(first + CHUNK - 1, #hashes) do names[#names + 1] = holders_key(hashes[at]) end
    if redis.call('EXISTS', unpack(names)) > 0 then return true end
  end
  return false
end

-- The live holders of an entry.
local function holders_of(look, hash)
  local live = look.live[hash]
  if live then return live end
  live = {}
  for _, agent in ipairs(redis.call('ZRANGEBYSCORE', holders_key(hash), '(' .. now, '+inf')) do
    if look.leased[agent] == nil then look.leased[agent] = is_leased(agent) or false end
    if look.leased[agent] then live[#live + 1] = agent end
  end
  look.live[hash] = live
  return live
end

-- Tokens of the deepest entry that any live agent but `except` holds; 0 when cold.
local function foreign_match(look, except, prompt)
  for n = #prompt.hashes, 1, -1 do
    local hash = prompt.hashes[n]
    local live = look.live[hash]
    if live ~= NOBODY then
      local is_match, matched = is_long_enough(prompt, n)
      if not is_match then return 0 end
      live = holders_of(look, hash)
      if #live > 1 or (#live == 1 and live[1] ~= except) then return matched end
    end
  end
  return 0
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
local function is_barred(agent, facts)
  if facts.avoid == agent then return true end
  return facts.is_suspect and facts.suitor and facts.suitor ~= agent and is_leased(facts.suitor)
end

-- Of what may be taken, in order, the first that no live agent holds; else the first that has waited longer for its
-- holders than they save; else nil and the ms until there is one (0: none).
local function cold_or_stolen(look, agent, open, prefill)
  if #open == 0 then return nil, 0 end
  local first, others = {}, {}
  add_unknown(first, look.live, open[1].hashes)
  if #first == #open[1].hashes and not is_anything_held(first) then return open[1].id, 'cold' end
  -- Requests that begin alike share what is held; one look tells whether anything of the rest is.
  for at = 2, #open do add_unknown(others, look.live, open[at].hashes) end
  if not is_anything_held(others) then
    for _, hash in ipairs(others) do look.live[hash] = NOBODY end
  end
  local steal, hint = nil, 0
  for _, facts in ipairs(open) do
    local matched = foreign_match(look, agent, facts)
    if matched == 0 then return facts.id, 'cold' end
    -- Rounded up as a whole: Redis cuts an answer of 0.4 ms to 0, which would mean that there is nothing to wait for.
    local left = math.ceil(facts.accepted + math.floor(matched * 1000 / prefill) + 1 - now)
    if left <= 0 then
      steal = steal or facts.id
    elseif hint == 0 or left < hint then
      hint = left
    end
  end
  if steal then return steal, 'stolen' end
  return nil, hint
end

-- The next request for this agent: its id and by which rule, or nil and the ms until one may be stolen (0: none).
local function choose(look, agent)
  local fields = redis.call('HMGET', agent_key(agent), 'claims', 'prefill')
  if (tonumber(fields[1] or '0') + 1) % OLDEST_EVERY == 0 then
    for _, id in ipairs(redis.call('ZRANGE', AGE, 0, WINDOW - 1)) do
      if not is_barred(agent, facts_of(look, id)) then return id, 'oldest' end
    end
  end
  local prefill = tonumber(fields[2] or '0')
  if prefill <= 0 then prefill = DEFAULT_PREFILL end
  if look.holds == nil then look.holds = redis.call('EXISTS', held_key(agent)) == 1 end
  local open, hashes = {}, {}
  for _, id in ipairs(window()) do
    local facts = facts_of(look, id)
    if not is_barred(agent, facts) then
      open[#open + 1] = facts
      if look.holds then
        add_unknown(hashes, look.own, facts.hashes)
      elseif #open == 1 and not is_anything_held(facts.hashes) then
        -- The usual case without affinity: the others need no look.
        return id, 'cold'
      end
    end
  end
  if #hashes > 0 then look_up_own(look, agent, hashes) end
  local best, most = nil, 0
  if look.holds then
    for _, facts in ipairs(open) do
      local matched = deepest(look.own, facts)
      if matched > most then best, most = facts.id, matched end
    end
  end
  if best then return best, 'own' end
  return cold_or_stolen(look, agent, open, prefill)
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
  local given, hint, look = 0, 0, new_look()
  promote()
  while given < room do
    local id, how = choose(look, agent)
    if not id then
      hint = how
      break
    end
    local wants_lane = facts_of(look, id).is_suspect
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
local function free_holder(prompt, hint)
  if not is_anything_held(prompt.hashes) then return nil, false end
  local look, rooms, is_held = new_look(), {}, false
  for n = #prompt.hashes, 1, -1 do
    if not is_long_enough(prompt, n) then break end
    local agent, most = nil, 0
    for _, holder in ipairs(holders_of(look, prompt.hashes[n])) do
      is_held = true
      -- Whoever holds a deep entry holds those above it: each is looked at once.
      rooms[holder] = rooms[holder] or refresh_free(holder)
      local room = rooms[holder]
      local is_tie = agent and room == most
      if is_tie and hint ~= '' then is_tie = prefers(hint, holder, agent) elseif is_tie then is_tie = holder < agent end
      if room > most or is_tie then agent, most = holder, room end
    end
    if agent then return agent, true end
  end
  return nil, is_held
end

-- A request that comes while nobody waits need not enter the buffer to be taken out again: the agent that `place_new`
-- would give it to, and by which rule; nil where that takes a longer look. `is_held`: somebody may hold its beginning.
local function place_at_once(prompt, hint, is_held)
  local agent, least = nil, 1
  if is_held then
    agent, is_held = free_holder(prompt, hint)
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
  local is_own = own_match(agent, prompt) > 0
  if is_held and not is_own then return nil end
  if (tonumber(claims or '0') + 1) % OLDEST_EVERY == 0 then return agent, 'oldest', room end
  if is_own then return agent, 'own', room end
  return agent, 'cold', room
end

-- Step 2: find an agent for a request that has just entered the buffer, by the same choice as claim. Whoever may take
-- it might have to take others first, so this goes on until it is given or nobody is left who may take anything.
local function place_new(id, prompt, hint)
  while redis.call('HGET', request_key(id), 'state') == 'waiting' do
    local agent = freest(hint)
    if not agent then return end
    agent = free_holder(prompt, hint) or agent
    local given, steal = claim_for(agent, 1)
    -- One that has just reserved a request is not free any more: the next may take what stands behind.
    if given == 0 and redis.call('ZSCORE', FREE, agent) then return poke(agent, steal) end
  end
end
