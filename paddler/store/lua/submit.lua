-- Step 2. Keys: format, request, payload, watchers, demand, idempotency, vtime, tag; buffer, order, age, queued, aside, deadlines, backlog;
-- holders of the chain; lane, free and hash of the agent chosen.
-- ARGV: now, id, class, tenant, payload, inbox, start timeout (ms, 0 none), max waiting, packed prefix chain,
-- prompt tokens, expected output tokens, tenant's weight, hint, tenant's max waiting (0: no limit),
-- fleet rate (tokens/s, 0 unknown), max estimated wait (ms, 0 none), background (0 or 1), idempotency key and its TTL (s),
-- fingerprint (what the idempotency key stands for), label (kept with the request), journal (step 12: frames of this
-- very request that Redis has forgotten), id of the API key that it is accounted to ('' for none).
-- Returns {status, number, id}: the 0-based position, or how many wait, or the estimated wait in ms for `slow`; `outdated`
-- where newer formats have shut this one out.
local id, class, tenant, payload, inbox = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local start_timeout, max_waiting = tonumber(ARGV[7]), tonumber(ARGV[8])
local chain, prompt_tokens, output_tokens = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])
local weight, hint, tenant_max = tonumber(ARGV[12]), ARGV[13], tonumber(ARGV[14])
local rate, max_wait, background = tonumber(ARGV[15]), tonumber(ARGV[16]), ARGV[17]
local idempotency, idempotency_ttl, fingerprint, label = ARGV[18], tonumber(ARGV[19]), ARGV[20], ARGV[21]
local journal, api_key = ARGV[22], ARGV[23]

if not is_admitted() then return {'outdated', 0, id} end
local key = request_key(id)
if redis.call('EXISTS', key) == 1 then return {'known', 0, id} end
if idempotency ~= '' then
  local earlier = redis.call('GET', idempotency_key(tenant, idempotency))
  -- One that failed or was cancelled gave its client nothing: trying again means a new request.
  local fields = {}
  if earlier then fields = redis.call('HMGET', request_key(earlier), 'state', 'cancel', 'fingerprint') end
  if fields[1] and fields[1] ~= 'failed' and fields[1] ~= 'cancelled' and not fields[2] then
    if (fields[3] or '') ~= fingerprint then
      count('mismatch')
      return {'mismatch', 0, earlier}
    end
    count('duplicate')
    -- At once: its last follower may leave before this one is attached, and that would cancel it.
    if not is_terminal(fields[1]) then redis.call('SADD', watchers_key(earlier), inbox) end
    return {'duplicate', 0, earlier}
  end
end

-- Bounds hold for what would wait: a free slot serves even without a buffer. `paddler/routing/admission.py` is the same
-- decision as a pure function, and a test holds the two together.
local side = side_of(class, background == '1')
local is_empty, waiting = num_waiting() == 0, 0
if not is_empty then waiting = num_waiting_of(side) end
if waiting >= max_waiting or tenant_max > 0 or max_wait > 0 then
  if not freest() then
    if tenant_max > 0 then
      local of_tenant = redis.call('SCARD', queued_key(side, tenant))
      if of_tenant >= tenant_max then
        count('tenant_full')
        return {'tenant_full', of_tenant, id}
      end
    end
    if waiting >= max_waiting then
      count('full')
      return {'full', waiting, id}
    end
    local ahead = tonumber(redis.call('GET', backlog_key(side)) or '0')
    if max_wait > 0 and rate > 0 and ahead * 1000 / rate > max_wait then
      count('slow')
      return {'slow', math.ceil(ahead * 1000 / rate), id}
    end
  end
end

-- Fair queueing charges the tokens that have to be computed.
local prompt = new_prompt(chain, prompt_tokens)
local is_held = is_anything_held(prompt.hashes)
local cached = 0
if is_held then cached = foreign_match(new_look(), prompt, 0) end
local cost = math.max(1, math.floor(prompt_tokens - cached + output_tokens))
local start, score = charge(class, tenant, cost, weight)

local deadline = 0
if start_timeout > 0 then deadline = now + start_timeout end
local request = {'class', class, 'tenant', tenant, 'accepted', now, 'deadline', deadline, 'score', score, 'start', start,
  'cost', cost, 'weight', weight, 'tokens', prompt_tokens, 'demand', redis.call('XADD', demand_key(class), '*', 'id', id)}
local function note(field, value)
  request[#request + 1] = field
  request[#request + 1] = value
end
-- What is left of it when an agent has begun: see release.
if deadline > 0 then note('due', deadline) end
if chain ~= '' then note('chain', chain) end
if label ~= '' then note('label', label) end
if fingerprint ~= '' then note('fingerprint', fingerprint) end
if background == '1' then note('background', 1) end
if api_key ~= '' then note('api_key', api_key) end
if idempotency ~= '' then redis.call('SET', idempotency_key(tenant, idempotency), id, 'EX', idempotency_ttl) end
redis.call('SET', payload_key(id), payload)
if journal ~= '' then redis.call('SET', journal_key(id), journal) end
redis.call('SADD', watchers_key(id), inbox)
count('accepted')
if is_empty then
  local agent, rule, room = place_at_once(prompt, hint, is_held)
  if agent then
    note('queue', class)
    note('delivered', now)
    give_at_once(agent, id, class, start, request, journal == '' and payload or nil)
    count('claimed_' .. rule)
    set_free(agent, room - 1)
    return {'assigned', 0, id}
  end
end
note('attempt', 0)
redis.call('HSET', key, unpack(request))
enter_buffer(id, side, tenant, class, score, now, deadline, cost)
place_new(id, prompt, hint)
if redis.call('HGET', key, 'state') ~= 'waiting' then return {'assigned', 0, id} end
count('buffered')
return {'waiting', redis.call('ZRANK', order_key(redis.call('HGET', key, 'queue')), id), id}
