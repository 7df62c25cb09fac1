-- Of a node that is gone: notes for how long, or removes the row. KEYS ring leader nodes
-- ARGV gen token sid for_s ('' removes)
if gen ~= ARGV[1] then return {'new', gen or ''} end
local row = node_row(KEYS[3], ARGV[3])
if not row or row.sid ~= ARGV[3] or row.state ~= 'revoked' then return {'no'} end
if not leads(KEYS[2], ARGV[2]) then return {'no'} end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[3], node_of(ARGV[3]))
  hint()
else
  row.gone = row.gone or {left = false}
  row.gone.for_s = tonumber(ARGV[4])
  redis.call('HSET', KEYS[3], node_of(ARGV[3]), cjson.encode(row))
end
return {'done'}
