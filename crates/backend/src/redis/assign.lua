-- KEYS ring leader assignment; ARGV gen token from_version (vnode node)...
if gen ~= ARGV[1] then return {'new', gen or ''} end
local version = tonumber(redis.call('HGET', KEYS[3], 'version') or '0')
if version ~= tonumber(ARGV[3]) or not leads(KEYS[2], ARGV[2]) then return {'no'} end
redis.call('HSET', KEYS[3], 'version', num(version + 1))
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
hint()
return {'done'}
