-- KEYS ring nodes; ARGV sid tombstone ('1': the row stays, as that of a sid that is over)
local row = node_row(KEYS[2], ARGV[1])
if row and row.sid == ARGV[1] then
  if ARGV[2] ~= '1' then
    redis.call('HDEL', KEYS[2], node_of(ARGV[1]))
  elseif row.state ~= 'revoked' then
    row.state, row.gone = 'revoked', {left = true, for_s = 0}
    redis.call('HSET', KEYS[2], node_of(ARGV[1]), cjson.encode(row))
  end
  hint()
end
if not gen then return {'new', ''} end
return {'done'}
