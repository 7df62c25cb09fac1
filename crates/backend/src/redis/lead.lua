-- Leads, goes on leading, or takes over from a leader whose beat was seen frozen.
-- KEYS ring leader; ARGV gen token leader_prefix frozen_token ('' if none) frozen_beat
if gen ~= ARGV[1] then return {'new', gen or ''} end
local value, beat = redis.call('GET', KEYS[2]), 1
if value then
  local leader = cjson.decode(value)
  if leader.token == ARGV[2] then
    beat = leader.beat + 1
  elseif leader.token ~= ARGV[4] or leader.beat ~= tonumber(ARGV[5]) then
    return {'other', value}
  end
end
redis.call('SET', KEYS[2], ARGV[3] .. num(beat) .. '}')
if beat == 1 then hint() end
return {'leading'}
