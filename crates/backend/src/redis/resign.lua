-- KEYS ring leader; ARGV gen token
if gen ~= ARGV[1] then return {'new', gen or ''} end
if not leads(KEYS[2], ARGV[2]) then return {'no'} end
redis.call('DEL', KEYS[2])
hint()
return {'done'}
