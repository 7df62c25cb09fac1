-- Core rule 16. KEYS ring nodes row assignment settling
-- ARGV gen sid vnode held ('' if none) floor pinned ttl_ms row_prefix
if gen ~= ARGV[1] then return {'new', gen or ''} end
local sid, held = ARGV[2], tonumber(ARGV[4])

local me = node_row(KEYS[2], sid)
if not me or me.sid ~= sid or me.state == 'revoked' then return {'unregistered'} end

local settling = redis.call('EXISTS', KEYS[5]) == 1
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local granted = tonumber(redis.call('HGET', KEYS[1], 'granted') or '0')
local epoch = math.max(now, tonumber(ARGV[5]) + 1, granted + 1)

local value = redis.call('GET', KEYS[3])
if value then
  local row = cjson.decode(value)
  epoch = math.max(epoch, row.epoch + 1)
  local owner = node_row(KEYS[2], row.sid)
  local over = not owner or ended(owner, row.sid)
  local regained = settling and held and held > row.epoch
  if row.sid ~= sid and not over and not regained then return {'held', value} end
end
if settling and not held then return {'settling'} end

local mine = settling
if not mine then
  local target = redis.call('HGET', KEYS[4], ARGV[3])
  if target then mine = target == node_of(sid) else mine = ARGV[6] == '1' end
end
if not mine then return {'not_yours'} end

redis.call('HSET', KEYS[1], 'granted', num(epoch))
redis.call('SET', KEYS[3], ARGV[8] .. num(epoch) .. ',"ready":false}', 'PX', ARGV[7])
hint()
return {'granted', num(epoch)}
