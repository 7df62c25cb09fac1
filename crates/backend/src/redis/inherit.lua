-- One piece of what a new owner takes over. Refused if the head is not as that activation left it: another life of
-- the data, another owner, or a write in between would mix two states.
-- KEYS head collection; ARGV epoch sid seq data_set outbox|due|hash from
local head = redis.call('HMGET', KEYS[1], 'epoch', 'sid', 'seq', 'data_set')
if head[1] ~= ARGV[1] or head[2] ~= ARGV[2] or head[3] ~= ARGV[3] or head[4] ~= ARGV[4] then return {'changed'} end
local kind, from = ARGV[5], ARGV[6]
if kind == 'outbox' then
  -- Events have up to 64 KiB.
  local some = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 4)
  local last = #some == 4 and '(' .. some[4][1] or ''
  return {'piece', last, some}
end
-- An element that is there all the time is told at least once; nothing is written meanwhile.
local piece = redis.call('HSCAN', KEYS[2], from, 'COUNT', kind == 'due' and 8 or 64)
local fields = piece[2]
if kind == 'due' then
  for i = 2, #fields, 2 do fields[i] = string.match(fields[i], '^%d+') .. ' ' .. (string.match(fields[i], ',"from":(".-"),"at":') or '""') end
end
return {'piece', piece[1] == '0' and '' or piece[1], fields}
