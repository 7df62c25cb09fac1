-- Core rules 17 and 18. KEYS head outbox presence members due wanted owed tickets; ARGV epoch sid data_set prove held_epoch held_seq ('' if none)
-- Epochs and seqs are compared as numbers and kept as the texts that came, which never have an exponent.
local epoch, sid, data_set = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local generation, seq, previous, clock = ARGV[1], '0', '', '0'

local head = redis.call('HMGET', KEYS[1], 'epoch', 'sid', 'generation', 'seq', 'data_set', 'clock')
if head[1] then
  local stored = tonumber(head[1])
  if epoch < stored or (epoch == stored and sid ~= head[2]) then return {'refused', head[1]} end
  local known = head[5] == data_set
  local repeated = epoch == stored and known
  local proved = ARGV[5] ~= '' and stored == tonumber(ARGV[5]) and head[2] == sid
    and tonumber(head[4]) >= tonumber(ARGV[6])
  if repeated or proved or (known and ARGV[4] ~= '1') then generation = head[3] end
  seq, previous, clock = head[4], head[2], head[6] or '0'
else
  -- A head that went alone (removed by hand) would leave an outbox whose last id is above every new seq, and
  -- XADD would fail halfway through each write from then on.
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if last then seq = string.match(last[1], '^%d+') else redis.call('DEL', KEYS[2]) end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'sid', sid, 'generation', generation, 'seq', seq, 'data_set', data_set)
-- What is small comes at once. The rest is brought in pieces (inherit.lua): this script holds up everything else.
local inherited, small = {}, {4, 256, 128, 0, 256, 4, 256}
for i, most in ipairs(small) do
  local key = KEYS[i + 1]
  if redis.call(i == 1 and 'XLEN' or 'HLEN', key) <= most then
    inherited[i] = i == 1 and redis.call('XRANGE', key, '-', '+') or redis.call('HGETALL', key)
  else
    inherited[i] = 'more'
  end
end
return {'activated', generation, seq, previous, clock, inherited}
