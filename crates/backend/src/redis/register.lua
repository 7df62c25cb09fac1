-- KEYS ring nodes; ARGV gen sid row
if gen ~= ARGV[1] then return {'new', gen or ''} end
local sid = ARGV[2]
local row = node_row(KEYS[2], sid)
-- Its tombstone: a life that is over does not begin again (core rule 21).
if row and row.sid == sid and row.state == 'revoked' then return {'revoked'} end
if row and row.sid ~= sid and born_of(row.sid) >= born_of(sid) then return {'replaced'} end
local value = ARGV[3]
-- Said again, maybe late: a beat that went back would look like one that stands still.
if row and row.sid == sid then
  local again = cjson.decode(value)
  again.beat = row.beat
  value = cjson.encode(again)
end
redis.call('HSET', KEYS[2], node_of(sid), value)
hint()
return {'done'}
