-- Makes the ring if there is none, and says which one there is.
-- KEYS ring; ARGV gen run_id vnodes hash
local ring = redis.call('HMGET', KEYS[1], 'gen', 'vnodes')
if ring[1] then return ring end
redis.call('HSET', KEYS[1], 'gen', ARGV[1], 'run_id', ARGV[2], 'replid', replid(), 'vnodes', ARGV[3], 'hash', ARGV[4])
return {ARGV[1], ARGV[3]}
