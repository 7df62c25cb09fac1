-- One fenced step of a vnode (core rules 10, 11, 18): all of its operations or none. Everything that can fail is
-- looked at before the first write, because Redis takes nothing back. Should something fail all the same (a command
-- that this user may not do, a disk that fills), the head stays `torn`: nothing is written on top, and the next
-- activation begins a new generation. Within an operation the event comes first and what makes a repeat a duplicate
-- last, so that nothing is taken for done whose event is nowhere. What is published is published at the end.
-- KEYS head outbox presence members due wanted owed tickets, (stream tail ids0 ids1) per stream, (seen cursors) per user
-- ARGV replid, the fence, the settings, the streams, the operations, in the order they are read below
local at = 0
local function arg()
  at = at + 1
  return ARGV[at]
end
-- Lua's numbers are doubles and print with an exponent from 1e14 on.
local function num(n) return string.format('%.0f', n) end

local head_key, outbox, presence, members = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local due, wanted, owed, tickets = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
-- A late copy of a write must not land in data that went back to when it would have been right.
if replid() ~= arg() then return {'elsewhere'} end
local epoch, sid, fence = tonumber(arg()), arg(), tonumber(arg())
local head = redis.call('HMGET', head_key, 'epoch', 'sid', 'seq', 'generation', 'clock', 'presence', 'torn')
if not head[1] then return {'lost'} end
if tonumber(head[1]) > epoch then return {'deposed'} end
if tonumber(head[1]) < epoch or head[2] ~= sid or head[7] == '1' then return {'lost'} end
local stored, generation = tonumber(head[3]), head[4]
if stored < fence then return {'rewound'} end
if stored > fence then
  redis.call('HSET', head_key, 'seq', num(stored + 1))
  return {'behind', num(stored + 1), redis.call('XRANGE', outbox, '-', '+')}
end

local trim, now = tonumber(arg()), math.max(tonumber(arg()), tonumber(head[5] or '0'))
local max_len, max_age, tails_kept = arg(), arg(), arg()
local ids_slice, ids_kept = tonumber(arg()), arg()
local numbers_prefix = arg()
local devices_kept, uses_field, used_prefix, forgot_field = tonumber(arg()), arg(), arg(), arg()

local streams, users, told, published, seq = {}, {}, {}, {}, fence
for i = 1, tonumber(arg()) do
  local key = 4 * (i + 1) + 1
  local ids = {[0] = KEYS[key + 2], [1] = KEYS[key + 3]}
  streams[i] = {name = arg(), room = arg() == '1', prefix = arg(), key = KEYS[key], tail = KEYS[key + 1], ids = ids}
end
for i = 1, tonumber(arg()) do
  local key = 7 + 4 * #streams + 2 * i
  users[i] = {seen = KEYS[key], cursors = KEYS[key + 1]}
end

local function emit(topic, key, event)
  seq = seq + 1
  redis.call('XADD', outbox, num(seq) .. '-0', 'topic', topic, 'key', key, 'event', event)
end

-- When all else is done. Channels have the names of keys.
local function publish(key, payload)
  published[#published + 1] = {key, payload}
end

-- The stream as it is in this generation: what is left of another, or without a tail, goes.
local function opened(stream)
  if stream.offset then return end
  local tail = redis.call('GET', stream.tail)
  local of, offset = string.match(tail or '', '^(%d+):(%d+)$')
  if of == generation then
    stream.offset = tonumber(offset)
  else
    redis.call('DEL', stream.key, stream.tail)
    stream.offset = 0
  end
end

-- What is kept about an id, after turning the two slices to the present. The newer slice is the current one; ids
-- that are ahead of the clock (the head was lost without them) turn nothing. Ids hold a line feed, so none is
-- called 'slice'.
local function known(stream, id)
  local ids = stream.ids
  if not stream.slice then
    local a, b = redis.call('HGET', ids[0], 'slice'), redis.call('HGET', ids[1], 'slice')
    stream.slice = math.max(tonumber(a or '0'), tonumber(b or '0'))
    local slice = math.floor(now / ids_slice)
    if slice > stream.slice then
      redis.call('DEL', ids[slice % 2])
      if slice > stream.slice + 1 then redis.call('DEL', ids[1 - slice % 2]) end
      redis.call('HSET', ids[slice % 2], 'slice', num(slice))
      redis.call('PEXPIRE', ids[slice % 2], ids_kept)
      stream.slice = slice
    end
  end
  return redis.call('HGET', ids[0], id) or redis.call('HGET', ids[1], id)
end

-- To whoever says it again.
local function repeated(before, hash)
  local offset, first_time, first_hash = string.match(before, '^(%d+) (%d+) (%d+)$')
  if first_hash == hash then return {'duplicate', offset, first_time} end
  return {'conflict'}
end

local function know(stream, id, offset, time, hash)
  redis.call('HSET', stream.ids[stream.slice % 2], id, offset .. ' ' .. time .. ' ' .. hash)
end

-- Whether a message may be taken that answers an event, or says that nobody does.
local function closed(stream, user, name, answers, ticket)
  if redis.call('HEXISTS', tickets, ticket) == 1 then return true end
  return answers == '1' and (stream.appended or redis.call('EXISTS', stream.tail, user.seen) > 0 or redis.call('HEXISTS', presence, name) == 1)
end

local function append()
  local stream, id, hash, time, is_due, receipt = streams[tonumber(arg())], arg(), arg(), arg(), arg(), arg()
  local closes, user, name, ticket = arg(), nil, nil, nil
  if closes ~= '' then user, name, ticket = users[tonumber(arg())], arg(), arg() end
  local rest = arg()
  local before = known(stream, id)
  if before then
    if closes ~= '' then redis.call('HDEL', tickets, ticket) end
    return repeated(before, hash)
  end
  if closes ~= '' and not closed(stream, user, name, closes, ticket) then return {'nobody'} end
  opened(stream)
  stream.offset, stream.appended = stream.offset + 1, true
  local offset = num(stream.offset)
  local message = stream.prefix .. generation .. ',"offset":' .. offset .. ',' .. rest
  emit('chat', stream.name, message)
  redis.call('XADD', stream.key, 'MAXLEN', '=', max_len, offset .. '-0', 'm', message)
  -- The name of an inbox is `user:` and the user.
  local place = string.sub(stream.name, 6) .. '\n' .. generation .. ':' .. offset
  if is_due == '1' then redis.call('HSET', due, place, num(now) .. ' ' .. message) end
  if receipt ~= '' then redis.call('HSET', wanted, place, receipt) end
  -- The event that it answers waits no more.
  if closes ~= '' then redis.call('HDEL', tickets, ticket) end
  know(stream, id, offset, time, hash)
  -- A room's channel has the name of its key.
  if stream.room then publish(stream.key, message) end
  return {'appended', offset}
end

local function event()
  local stream, id, hash, time, name, ticket, rest = streams[tonumber(arg())], arg(), arg(), arg(), arg(), arg(), arg()
  local before = known(stream, id)
  if before then return repeated(before, hash) end
  emit('client', name, numbers_prefix .. num(seq + 1) .. ',' .. rest)
  redis.call('HSET', tickets, ticket, num(now) .. ' ' .. time)
  know(stream, id, '0', time, hash)
  stream.known = true
  return {'accepted'}
end

-- An empty text stands for none.
local function set_presence()
  local user, name, roster, seen, event = users[tonumber(arg())], arg(), arg(), arg(), arg()
  if seen ~= '' then redis.call('SET', user.seen, seen, 'PX', tails_kept) end
  if (redis.call('HGET', presence, name) or '') == roster then return {'presence', '0'} end
  if event ~= '' then
    emit('status', name, numbers_prefix .. num(seq + 1) .. ',' .. event)
    told[#told + 1] = '{' .. event
  end
  if roster == '' then
    redis.call('HDEL', presence, name)
  else
    redis.call('HSET', presence, name, roster)
  end
  return {'presence', '1'}
end

-- The end of a stream, and the first offset in its window.
local function ends(stream)
  opened(stream)
  local entry = redis.call('XRANGE', stream.key, '-', '+', 'COUNT', 1)[1]
  return num(stream.offset), entry and string.match(entry[1], '^%d+') or num(stream.offset + 1)
end

local function tail()
  local offset, first = ends(streams[tonumber(arg())])
  return {'tail', offset, first}
end

-- An empty version: nobody is left.
local function set_member()
  local stream, user, entry, version, note = streams[tonumber(arg())], arg(), arg(), arg(), arg()
  local field = stream.name .. '\n' .. user
  if entry ~= '' then redis.call('HSET', members, field, entry) else redis.call('HDEL', members, field) end
  if version ~= '' then
    redis.call('HSET', members, stream.name, version)
  else
    redis.call('HDEL', members, stream.name)
  end
  publish(stream.key, note)
  return {'member'}
end

-- A device was used: it has its cursor for longer than those used before.
local function used(cursors, device)
  redis.call('HSET', cursors, used_prefix .. device, redis.call('HINCRBY', cursors, uses_field, 1))
  redis.call('PEXPIRE', cursors, tails_kept)
end

-- Of too many devices those go that were used before the others; earlier versions said nothing of uses. What they
-- left may be of any number: then a part is looked at each time, which has more that go than one that comes.
local function forget(cursors, device, is_new)
  -- A device has two fields, and three are of none.
  if not is_new and redis.call('HLEN', cursors) <= 2 * devices_kept + 3 then return end
  local others, fields = {}, {}
  for _, field in ipairs(redis.call('HRANDFIELD', cursors, 4 * devices_kept)) do
    if string.sub(field, 1, 1) ~= '\n' and field ~= device then
      others[#others + 1] = {name = field}
      fields[#fields + 1] = used_prefix .. field
    end
  end
  local over = #others + 1 - devices_kept
  if over <= 0 then return end
  local uses = redis.call('HMGET', cursors, unpack(fields))
  for i, other in ipairs(others) do other.use = tonumber(uses[i] or '-1') end
  table.sort(others, function(a, b) return a.use < b.use end)
  for i = 1, over do redis.call('HDEL', cursors, others[i].name, used_prefix .. others[i].name) end
  redis.call('HSET', cursors, forgot_field, '1')
end

local function open()
  local stream, user, name = streams[tonumber(arg())], users[tonumber(arg())], arg()
  local device, of_user = arg(), arg()
  local offset, first = ends(stream)
  local acked = device ~= '' and redis.call('HGET', user.cursors, device) or ''
  local forgotten = 0
  if acked ~= '' then
    used(user.cursors, device)
  elseif device ~= '' then
    forgotten = redis.call('HEXISTS', user.cursors, forgot_field)
  end
  local roster, seen = redis.call('HGET', presence, name), redis.call('GET', user.seen)
  local read = redis.call('HGET', user.cursors, of_user)
  return {'opened', offset, first, acked, num(forgotten), read or '', roster or '', seen or ''}
end

-- Raises a cursor; says where and which, and whether it is a new one.
local function raise()
  local cursors, field, of, offset = users[tonumber(arg())].cursors, arg(), arg(), arg()
  local before = redis.call('HGET', cursors, field)
  local was_of, was = string.match(before or '', '^(%d+):(%d+)$')
  was_of, was = tonumber(was_of or '-1'), tonumber(was or '-1')
  if tonumber(of) > was_of or (tonumber(of) == was_of and tonumber(offset) > was) then
    redis.call('HSET', cursors, field, of .. ':' .. offset)
  end
  redis.call('PEXPIRE', cursors, tails_kept)
  return cursors, field, not before
end

local function ack()
  local cursors, device, is_new = raise()
  used(cursors, device)
  forget(cursors, device, is_new)
  return {'acked'}
end

local function read()
  raise()
  return {'acked'}
end

-- Fields and values; an empty one is removed.
local function set(key)
  for _ = 1, tonumber(arg()) do
    local field, value = arg(), arg()
    if value ~= '' then redis.call('HSET', key, field, value) else redis.call('HDEL', key, field) end
  end
end

-- What is owed comes before it is wanted no more: half of it is told twice rather than never.
local function receipts()
  set(owed)
  set(wanted)
  return {'receipts'}
end

local function settle()
  for _ = 1, tonumber(arg()) do redis.call('HDEL', due, arg()) end
  return {'settled'}
end

local function undelivered()
  local user, field = arg(), arg()
  local waiting = redis.call('HGET', due, field)
  if not waiting then return {'undelivered', ''} end
  local message = string.match(waiting, '^%d+ (.*)$')
  emit('undelivered', user, message)
  redis.call('HDEL', due, field)
  return {'undelivered', message}
end

-- A full Redis refuses a script at its first write or not at all, and only if that write takes memory: so one with
-- operations is refused whole, and one that only trims is let through.
if at < #ARGV then redis.call('HSET', head_key, 'torn', '1') end
if trim > 0 then redis.call('XTRIM', outbox, 'MINID', '=', num(trim + 1)) end
local operations, results = {append = append, event = event, presence = set_presence, open = open, ack = ack,
  read = read, tail = tail, member = set_member, settle = settle, undelivered = undelivered,
  receipts = receipts}, {}
while at < #ARGV do results[#results + 1] = operations[arg()]() end

for _, stream in ipairs(streams) do
  if stream.appended then
    redis.call('SET', stream.tail, generation .. ':' .. num(stream.offset), 'PX', tails_kept)
    redis.call('PEXPIRE', stream.key, max_age)
  end
  if stream.appended or stream.known then redis.call('PEXPIRE', stream.ids[stream.slice % 2], ids_kept) end
end
-- Raised even without an event, so that a copy of this write that lands later does not apply.
if seq == fence then seq = seq + 1 end
-- What others see now, all of it together. The channel has the name of the roster's key.
local version = head[6]
if told[1] then
  version = '{"epoch":' .. num(epoch) .. ',"n":' .. num(seq) .. '}'
  publish(presence, '{"presence":{"before":' .. (head[6] or '{"epoch":0,"n":0}') .. ',"version":' .. version
    .. ',"users":[' .. table.concat(told, ',') .. ']}}')
end
if version then
  redis.call('HSET', head_key, 'seq', num(seq), 'clock', num(now), 'torn', '0', 'presence', version)
else
  redis.call('HSET', head_key, 'seq', num(seq), 'clock', num(now), 'torn', '0')
end
-- Who does not hear of it compares tails; so one that is refused fails nothing, and is told.
local refused = ''
for _, said in ipairs(published) do
  local heard = redis.pcall('PUBLISH', channels .. said[1], said[2])
  if type(heard) == 'table' and heard.err then refused = 'PUBLISH: ' .. heard.err end
end
return {'done', num(seq), results, refused}
