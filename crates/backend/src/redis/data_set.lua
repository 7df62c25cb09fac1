-- Core rule 19, before the first script of a connection and whenever the ring is gone or its history another: data
-- written under another run_id or replid, or none, is another data set. Runs on the connection that asked for the
-- run_id, so whoever comes second finds it done. A process that has not opened the ring knows no vnodes (0) and makes
-- none.
-- KEYS ring settling; ARGV fresh run_id vnodes settling_ms
local ring = redis.call('HMGET', KEYS[1], 'gen', 'run_id', 'vnodes', 'replid')
local present = replid()
if ring[1] and ring[2] == ARGV[2] and (not ring[4] or ring[4] == present) then
  -- Earlier versions noted none.
  if not ring[4] then redis.call('HSET', KEYS[1], 'replid', present) end
  return {ring[1], ring[3], present}
end
local vnodes = ring[3] or ARGV[3]
if vnodes == '0' then return {'', '0', present} end
-- The mark first: a name without it would let anyone claim what another holds.
redis.call('SET', KEYS[2], '1', 'PX', ARGV[4])
redis.call('HSET', KEYS[1], 'gen', ARGV[1], 'run_id', ARGV[2], 'replid', present, 'vnodes', vnodes)
redis.pcall('PUBLISH', channels .. '{roost}:hint', '')
return {ARGV[1], vnodes, present}
