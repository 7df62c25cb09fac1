-- Does once each command that the scripts here use, on keys of its own, and says which of them are refused.
-- KEYS text hash stream; ARGV channel ('' for none)
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return end
  -- Full, read-only and the like pass by themselves.
  local never = string.find(answer.err, 'NOPERM') or string.find(answer.err, 'executing the script')
  if never or string.find(answer.err, 'nknown') then refused[#refused + 1] = (...) end
end

local text, hash, stream = KEYS[1], KEYS[2], KEYS[3]
try('TIME')
try('INFO', 'replication')
try('SET', text, '1', 'PX', '1000')
try('PEXPIRE', text, '1000')
try('GET', text)
try('MGET', text, text)
try('EXISTS', text)
try('HSET', hash, 'a', '1')
try('HGET', hash, 'a')
try('HMGET', hash, 'a', 'b')
try('HGETALL', hash)
try('HEXISTS', hash, 'a')
try('HLEN', hash)
try('HINCRBY', hash, 'a', '1')
try('HRANDFIELD', hash, '1')
try('HSCAN', hash, '0')
try('HDEL', hash, 'a')
try('XADD', stream, '1-0', 'm', '1')
try('XLEN', stream)
try('XRANGE', stream, '-', '+')
try('XREVRANGE', stream, '+', '-')
try('XTRIM', stream, 'MINID', '2')
try('DEL', text, hash, stream)
if ARGV[1] ~= '' then try('PUBLISH', ARGV[1], '') end
return refused
