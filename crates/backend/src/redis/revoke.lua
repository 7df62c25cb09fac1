-- Core rule 23: by compare-and-set on sid and beat. KEYS ring leader nodes; ARGV gen token sid beat
if gen ~= ARGV[1] then return {'new', gen or ''} end
local row = node_row(KEYS[3], ARGV[3])
if not row or row.sid ~= ARGV[3] or row.beat ~= tonumber(ARGV[4]) then return {'no'} end
if not leads(KEYS[2], ARGV[2]) then return {'no'} end
row.state = 'revoked'
redis.call('HSET', KEYS[3], node_of(ARGV[3]), cjson.encode(row))
hint()
return {'done'}
