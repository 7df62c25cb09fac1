-- KEYS ring nodes; ARGV sid
local row = node_row(KEYS[2], ARGV[1])
if row and row.sid == ARGV[1] then
  redis.call('HDEL', KEYS[2], node_of(ARGV[1]))
  hint()
end
if not gen then return {'new', ''} end
return {'done'}
