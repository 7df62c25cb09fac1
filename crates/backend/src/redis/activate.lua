-- Core rules 17 and 18. KEYS head outbox presence members due wanted owed tickets; ARGV epoch sid data_set prove
-- held_epoch held_seq left_generation left_seq ('' if none) replid
-- Epochs and seqs are compared as numbers and kept as the texts that came, which never have an exponent.
if replid() ~= ARGV[9] then return {'elsewhere'} end
local epoch, sid, data_set = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local generation, seq, previous, clock = ARGV[1], '0', '', '0'

local head = redis.call('HMGET', KEYS[1], 'epoch', 'sid', 'generation', 'seq', 'data_set', 'clock', 'torn')
-- The head may be behind its outbox: it went alone (removed by hand), or a write failed in the middle. XADD would then
-- fail in the middle of each write from now on.
local last = (not head[1] or head[7] == '1') and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
last = last and string.match(last[1], '^%d+')
if head[1] then
  local stored, of, at = tonumber(head[1]), tonumber(head[3]), tonumber(head[4])
  local left, torn = ARGV[7] ~= '' and tonumber(ARGV[7]), head[7] == '1'
  -- Behind where the caller left it, or torn: what goes on from there would have places that name two messages.
  local broken = torn or left and (of < left or (of == left and at < tonumber(ARGV[8])))
  -- A generation is named by its epoch, so a new one needs a new epoch.
  if epoch < stored or (epoch == stored and (sid ~= head[2] or broken)) then return {'refused', head[1]} end
  local known = head[5] == data_set
  local repeated = epoch == stored and known
  local proved = ARGV[5] ~= '' and stored == tonumber(ARGV[5]) and head[2] == sid and at >= tonumber(ARGV[6])
  if not broken and (repeated or proved or (known and ARGV[4] ~= '1')) then generation = head[3] end
  seq, previous, clock = head[4], head[2], head[6] or '0'
  if last and tonumber(last) > at then seq = last end
elseif last then
  seq = last
else
  redis.call('DEL', KEYS[2])
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'sid', sid, 'generation', generation, 'seq', seq, 'data_set', data_set, 'torn', '0')
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
