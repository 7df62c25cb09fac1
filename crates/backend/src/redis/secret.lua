-- What nodes prove themselves to each other with; the first who asks makes it.
-- KEYS ring; ARGV fresh
local secret = redis.call('HGET', KEYS[1], 'link_secret')
if secret then return {secret} end
redis.call('HSET', KEYS[1], 'link_secret', ARGV[1])
return {ARGV[1]}
