-- Key map: that of common.lua, which comes before this part of every script.
-- Step 4: which request for an agent; `place.lua` has the other direction. `paddler/routing/policy.py` is the same
-- choice as a pure function, and a test holds the two together.

local WINDOW = 64
local MATCH_DIVISOR = 10 -- a match counts from a tenth of the prompt
local OLDEST_EVERY = 8
local TENANT_QUANTUM = 1024 -- tokens of score by which a match may overtake another tenant
local PROMOTE_LOOK = 16
local PROMOTIONS = {{'normal', 'interactive', 30000}, {'batch', 'normal', 120000}} -- from, to, after so many ms
local LOOK_EACH = 4 -- names that are not worth another question whether there are any
local CHUNK = 1000 -- arguments of one command: Lua's stack ends at 8,000
local DEFAULT_PREFILL = 500 -- tokens/s, until an agent has measured its own

-- A packed prefix chain: per entry 11 characters of hash and the prompt tokens it covers (>I4), shallow first.
local ENTRY, HASH = 15, 11
local NOBODY, SOMEBODY = 1, 2
local PAGE = 8 -- holders looked at together
local MAX_KNOWN = 512 -- prompts, of at most 64 entries each: 5 MB
local NEAR_LOOKS = 8 -- entries of a prompt, from the deepest that anybody holds: usually that one can be restored
local STAYS_MS = 30000 -- an agent that hands over answers for no longer
local SHARED = '*shared' -- among holders: the shared store, which is no agent

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
local function new_look() return {facts = {}, own = {}, live = {}, leased = {}, near = {}} end

-- What waits is looked at by one claim after another, and most of it never changes: the prompts read last, by key.
local known, num_known = {}, 0

local function remember(key, facts)
  if num_known == MAX_KNOWN then known, num_known = {}, 0 end
  known[key], num_known = facts, num_known + 1
end

local function is_marked(look, id)
  if look.has_marked == nil then look.has_marked = redis.call('EXISTS', MARKED) == 1 end
  return look.has_marked and redis.call('SISMEMBER', MARKED, id) == 1
end

-- A waiting request, as far as a choice needs it: a prompt with more fields. Who changes one of them marks it.
local function facts_of(look, id)
  local facts = look.facts[id]
  if facts then return facts end
  local key = request_key(id)
  facts = known[key]
  if not facts or is_marked(look, id) then
    local fields = redis.call('HMGET', key, 'fruitless', 'suitor', 'avoid', 'chain', 'tokens', 'accepted', 'tenant')
    local chain = fields[4] or ''
    if not facts or facts.chain ~= chain then
      facts = new_prompt(chain, tonumber(fields[5] or '0'))
      remember(key, facts)
    end
    facts.id, facts.is_suspect, facts.suitor, facts.avoid = id, is_suspect(fields[1]), fields[2], fields[3]
    facts.accepted, facts.tenant = tonumber(fields[6] or '0'), fields[7]
  end
  look.facts[id] = facts
  return facts
end

-- Add the hashes from the `first` one on that are not in `known` yet to a list.
local function add_unknown(list, known, hashes, first)
  for n = first or 1, #hashes do
    local hash = hashes[n]
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

-- Tokens of the deepest entry of which `own` is true, 0 for less than a tenth of the prompt; and which entry it is.
local function deepest(own, prompt)
  for n = #prompt.hashes, 1, -1 do
    if own[prompt.hashes[n]] then
      local is_match, matched = is_long_enough(prompt, n)
      return is_match and matched or 0, n
    end
  end
  return 0, 0
end

local function own_match(agent, prompt)
  local look = new_look()
  look_up_own(look, agent, prompt.hashes)
  return (deepest(look.own, prompt))
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

-- Whether a live agent holds this entry. Of a thousand holders one is enough to know, the last to say so.
local function is_held(look, hash)
  local found, first = look.live[hash], 0
  while not found do
    local page = redis.call('ZREVRANGEBYSCORE', holders_key(hash), '+inf', '(' .. now, 'LIMIT', first, PAGE)
    for _, agent in ipairs(page) do
      if look.leased[agent] == nil then look.leased[agent] = is_leased(agent) or false end
      if look.leased[agent] then
        found = SOMEBODY
        break
      end
    end
    if not found and #page < PAGE then found = NOBODY end
    first = first + PAGE
  end
  look.live[hash] = found
  return found == SOMEBODY
end

-- Of the other agents that hold this entry those with an address where one gets it: of the page that said so last.
local function givers(agent_asking, hash)
  local found = {}
  for _, agent in ipairs(redis.call('ZREVRANGEBYSCORE', holders_key(hash), '+inf', '(' .. now, 'LIMIT', 0, PAGE)) do
    local is_other = agent ~= SHARED and agent ~= agent_asking and is_leased(agent)
    local url = is_other and redis.call('HGET', agent_key(agent), 'kv_url')
    if url and url ~= '' then found[#found + 1] = {agent, url} end
  end
  return found
end

-- Whether the agent can restore this entry: from the shared store, or from another agent.
local function is_near(look, hash)
  local found = look.near[hash]
  if found == nil then
    local until_ms = look.has_store and redis.call('ZSCORE', holders_key(hash), SHARED)
    found = until_ms and tonumber(until_ms) > now or look.has_peers and #givers(look.agent, hash) > 0 or false
    look.near[hash] = found
  end
  return found
end

-- Tokens of the deepest entry that can be restored, between those that the agent has and the most that anybody has.
local function near_match(look, prompt, own, most)
  local num = 0
  for n = #prompt.hashes, 1, -1 do
    local tokens = end_of(prompt, n)
    if tokens <= own or num == NEAR_LOOKS then break end
    if tokens <= most then
      if is_near(look, prompt.hashes[n]) then return tokens end
      num = num + 1
    end
  end
  return own
end

-- Tokens of the deepest entry behind the `own_depth`-th that any live agent holds; 0 when there is none.
local function foreign_match(look, prompt, own_depth)
  for n = #prompt.hashes, own_depth + 1, -1 do
    local hash = prompt.hashes[n]
    if look.live[hash] ~= NOBODY then
      local is_match, matched = is_long_enough(prompt, n)
      if not is_match then return 0 end
      if is_held(look, hash) then return matched end
    end
  end
  return 0
end

-- Step 5: addresses of at most so many agents that hold more of a request's beginning than this one, the longest first;
-- before them that of the agent that has handed it over and stays a moment for what it has.
local function peers_of(agent, id, most)
  local peers, known = {}, {}
  if most == 0 then return peers end
  local fields = redis.call('HMGET', request_key(id), 'chain', 'kv_from', 'returned')
  if fields[2] and now - tonumber(fields[3] or '0') < STAYS_MS then peers[1] = fields[2] end
  local prompt = new_prompt(fields[1] or '', 0)
  if #prompt.hashes == 0 or not is_anything_held(prompt.hashes) then return peers end
  local look = new_look()
  look_up_own(look, agent, prompt.hashes)
  local _, own_depth = deepest(look.own, prompt)
  for n = #prompt.hashes, own_depth + 1, -1 do
    for _, giver in ipairs(givers(agent, prompt.hashes[n])) do
      if #peers >= most then return peers end
      if not known[giver[1]] then peers[#peers + 1] = giver[2] end
      known[giver[1]] = true
    end
  end
  return peers
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

-- A suspect that is reserved by another live agent is nobody else's; what this agent had to give up for want of room
-- is not its own again yet.
local function is_barred(agent, facts)
  if facts.avoid == agent then return true end
  return facts.is_suspect and facts.suitor and facts.suitor ~= agent and is_leased(facts.suitor)
end

-- Look up in as few calls as there can be what of these requests the agent holds.
local function learn_own(look, agent, open)
  local hashes = {}
  if look.holds then
    for _, facts in ipairs(open) do add_unknown(hashes, look.own, facts.hashes) end
    if #hashes > 0 then look_up_own(look, agent, hashes) end
  end
  for _, facts in ipairs(open) do facts.own, facts.own_depth = deepest(look.own, facts) end
end

-- Mark what nobody holds of these hashes, by halves: `EXISTS` tells how many there are, and those that are stand together.
local function find_held(look, hashes, names, first, last, num)
  local size = last - first + 1
  if size == 0 then return end
  num = num or size <= CHUNK and redis.call('EXISTS', unpack(names, first, last))
  if num == 0 then
    for at = first, last do look.live[hashes[at]] = NOBODY end
  elseif not num or num < size and size > LOOK_EACH then
    local middle = math.floor((first + last) / 2)
    local left = middle - first + 1 <= CHUNK and redis.call('EXISTS', unpack(names, first, middle))
    find_held(look, hashes, names, first, middle, left)
    find_held(look, hashes, names, middle + 1, last, num and left and num - left)
  end
end

-- Requests that begin alike share what is held: a few looks tell whether anybody holds more of these than the agent.
local function learn_holders(look, open)
  local hashes, names = {}, {}
  for _, facts in ipairs(open) do add_unknown(hashes, look.live, facts.hashes, facts.own_depth + 1) end
  for at, hash in ipairs(hashes) do names[at] = holders_key(hash) end
  find_held(look, hashes, names, 1, #hashes)
end

-- For how many ms the agent leaves a request to its holders, 0 when it is due; and tokens of the longest match of all.
local function left_of(look, facts)
  local most = math.max(facts.own, foreign_match(look, facts, facts.own_depth))
  if most == facts.own then return 0, most end
  -- What can be restored sooner than it is computed, is.
  local near = facts.own
  if look.restore > look.prefill then near = near_match(look, facts, facts.own, most) end
  local cost = (most - near) * 1000 / look.prefill
  if near > facts.own then cost = cost + (near - facts.own) * 1000 / look.restore end
  -- In this order of operations, as the policy has it: else the last bit may be another.
  local wait = math.floor(cost * look.patience) + 1
  -- Rounded up as a whole: Redis cuts an answer of 0.4 ms to 0, which would mean that there is nothing to wait for.
  return math.max(math.ceil(facts.accepted + wait - now), 0), most
end

-- The oldest of all that may be taken and is due, or nil. Usually that is the first.
local function oldest(look, agent)
  local rest = {}
  local function first_due(open)
    learn_own(look, agent, open)
    learn_holders(look, open)
    for _, facts in ipairs(open) do
      if left_of(look, facts) == 0 then return facts.id end
    end
  end
  local is_first = true
  for _, id in ipairs(redis.call('ZRANGE', AGE, 0, WINDOW - 1)) do
    local facts = facts_of(look, id)
    if not is_barred(agent, facts) then
      if not is_first then
        rest[#rest + 1] = facts
      elseif first_due({facts}) then
        return id
      end
      is_first = false
    end
  end
  return first_due(rest)
end

-- Of requests that the agent holds something of, in order, the longest match that is due; else nil and the ms until one
-- is (0: none). Longest first, as it is mostly due: then the others need no look.
local function own_of(look, open)
  local matched, hint = {}, 0
  for at, facts in ipairs(open) do
    if facts.own > 0 then
      facts.at = at
      matched[#matched + 1] = facts
    end
  end
  table.sort(matched, function(one, other)
    if one.own ~= other.own then return one.own > other.own end
    return one.at < other.at
  end)
  for at, facts in ipairs(matched) do
    if at == 1 then learn_holders(look, {facts}) elseif at == 2 then learn_holders(look, matched) end
    local left = left_of(look, facts)
    if left == 0 then return facts.id, 0 end
    if hint == 0 or left < hint then hint = left end
  end
  return nil, hint
end

-- Of what may be taken, in order, the longest match here that is due; else the first that no live agent holds; else the
-- first that is due; else nil and the ms until there is one (0: none).
local function cold_or_stolen(look, open)
  local own, hint = own_of(look, open)
  if own then return own, 'own' end
  local foreign, steal = {}, nil
  for _, facts in ipairs(open) do
    if facts.own == 0 then foreign[#foreign + 1] = facts end
  end
  for at, facts in ipairs(foreign) do
    if at == 1 then learn_holders(look, {facts}) elseif at == 2 then learn_holders(look, foreign) end
    local left, most = left_of(look, facts)
    if most == 0 then return facts.id, 'cold' end
    if left == 0 then
      steal = steal or facts.id
    elseif hint == 0 or left < hint then
      hint = left
    end
  end
  if steal then return steal, 'stolen' end
  return nil, hint
end

-- Requests of one class, in order: those that stand at most the quantum behind the first of another tenant, then the
-- others.
local function by_quantum(open)
  local first, other = open[1], nil
  for _, facts in ipairs(open) do
    if facts.tenant ~= first.tenant then
      other = facts
      break
    end
  end
  if not other then return open, {} end
  local near, far = {}, {}
  for _, facts in ipairs(open) do
    local ahead = facts.tenant == first.tenant and other or first
    local group = facts.score <= ahead.score + TENANT_QUANTUM and near or far
    group[#group + 1] = facts
  end
  return near, far
end

-- The next request for this agent, of whose slots so many are free: its id and by which rule, or nil and the ms until
-- one is due (0: none).
local function choose(look, agent, room)
  local fields = redis.call('HMGET', agent_key(agent), 'claims', 'prefill', 'slots', 'restore', 'kv_url', 'kv_shared')
  look.prefill, look.restore = tonumber(fields[2] or '0'), tonumber(fields[4] or '0')
  if look.prefill <= 0 then look.prefill = DEFAULT_PREFILL end
  look.agent, look.has_peers, look.has_store = agent, (fields[5] or '') ~= '', fields[6] == '1'
  local slots = tonumber(fields[3])
  look.patience = (math.max(slots - room, 0) + 1) / slots
  if look.holds == nil then look.holds = redis.call('EXISTS', held_key(agent)) == 1 end
  if (tonumber(fields[1] or '0') + 1) % OLDEST_EVERY == 0 then
    local id = oldest(look, agent)
    if id then return id, 'oldest' end
  end
  local size, hint = 0, 0
  for _, class in ipairs(CLASSES) do
    local open, listed = {}, {}
    if size < WINDOW then listed = redis.call('ZRANGE', order_key(class), 0, WINDOW - size - 1, 'WITHSCORES') end
    for at = 1, #listed, 2 do
      local facts = facts_of(look, listed[at])
      if not is_barred(agent, facts) then
        facts.score = tonumber(listed[at + 1])
        open[#open + 1] = facts
        -- The usual case without affinity: the others need no look.
        if #open == 1 and not look.holds and not is_anything_held(facts.hashes) then return facts.id, 'cold' end
      end
    end
    size = size + #listed / 2
    learn_own(look, agent, open)
    for _, group in ipairs({by_quantum(open)}) do
      local id, how = cold_or_stolen(look, group)
      if id then return id, how end
      if how > 0 and (hint == 0 or how < hint) then hint = how end
    end
  end
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
-- something is due (0: nothing to wait for).
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
  local free = refresh_free(agent)
  local room = math.min(free, limit)
  if room == 0 or waiting == 0 then return 0, 0 end
  local given, hint, look = 0, 0, new_look()
  promote()
  while given < room do
    local id, how = choose(look, agent, free - given)
    if not id then
      hint = how
      break
    end
    local wants_lane = facts_of(look, id).is_suspect
    if wants_lane and redis.call('XLEN', lane_key(agent)) > 0 then
      -- It wants a lane of its own: this agent claims nothing else until it can take it.
      redis.call('HSET', request_key(id), 'suitor', agent)
      redis.call('SADD', MARKED, id)
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
