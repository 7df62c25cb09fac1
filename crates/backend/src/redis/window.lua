-- A piece of a stream's hot window. Entries are taken a few at a time until the bytes are full: this script holds up
-- everything else for no longer than what it answers takes, and no more than that goes over the wire.
-- KEYS head tail stream; ARGV XRANGE|XREVRANGE from to entries bytes
local command, from, to, left, bytes = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
local entries, spent, full = {}, 0, false
while left > 0 and not full do
  -- As many as fit if they are as large as those before them.
  local few = 4
  if entries[1] then few = math.floor((bytes - spent) * #entries / math.max(spent, 1)) end
  few = math.min(left, 64, math.max(1, few))
  local some = redis.call(command, KEYS[3], from, to, 'COUNT', few)
  for _, entry in ipairs(some) do
    spent = spent + #entry[2][2]
    full = spent > bytes and entries[1] ~= nil
    if full then break end
    entries[#entries + 1] = entry
  end
  if #some < few then break end
  left, from = left - few, '(' .. some[#some][1]
end
return {redis.call('HGET', KEYS[1], 'generation') or '', redis.call('GET', KEYS[2]) or '', first and first[1] or '', entries}
