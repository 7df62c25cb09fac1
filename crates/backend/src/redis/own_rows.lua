-- Marks rows ready or gives them up; one that is no longer this sid's under that epoch is left alone.
-- KEYS ring row...; ARGV gen ready|release row_prefix epoch...
if gen ~= ARGV[1] then return {'new', gen or ''} end
local ready, done, changed = ARGV[2] == 'ready', {}, false
for i = 1, #KEYS - 1 do
  local key, mine = KEYS[i + 1], ARGV[3] .. ARGV[i + 3] .. ','
  local value = redis.call('GET', key)
  if value and string.sub(value, 1, #mine) == mine then
    if ready then
      redis.call('SET', key, mine .. '"ready":true}', 'KEEPTTL')
    else
      redis.call('DEL', key)
    end
    done[i], changed = '1', true
  else
    done[i] = '0'
  end
end
if changed then hint() end
return {'done', table.concat(done)}
