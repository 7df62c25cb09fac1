-- Beats, and extends those of the rows that are still this sid's under the epoch it says; makes none.
-- KEYS ring nodes row...; ARGV gen sid state load row_prefix ttl_ms epoch...
if gen ~= ARGV[1] then return {'new', gen or ''} end
local sid, state, prefix, ttl = ARGV[2], ARGV[3], ARGV[5], ARGV[6]

local me = node_row(KEYS[2], sid)
if not me then return {'unregistered'} end
if me.sid ~= sid then
  return {born_of(me.sid) >= born_of(sid) and 'replaced' or 'unregistered'}
end
if me.state == 'revoked' then return {'revoked'} end

-- In pieces: Lua's stack holds 8,000 values.
local rows, done, piece = #KEYS - 2, {}, 1000
for first = 1, rows, piece do
  local last = math.min(first + piece - 1, rows)
  local values = redis.call('MGET', unpack(KEYS, first + 2, last + 2))
  for i = first, last do
    -- Rows are written by scripts alone, so the beginning says whose it is without decoding a thousand of them.
    local mine, value = prefix .. ARGV[i + 6] .. ',', values[i - first + 1]
    if value and string.sub(value, 1, #mine) == mine then
      redis.call('PEXPIRE', KEYS[i + 2], ttl)
      done[i] = '1'
    else
      done[i] = '0'
    end
  end
end

-- After the rows: a full Redis refuses a script at its first write if that takes memory, and would end every lease.
-- A beat alone is not worth a hint: every process would read the table at every beat of every node.
if me.state ~= state then hint() end
me.beat, me.state, me.load = me.beat + 1, state, cjson.decode(ARGV[4])
redis.call('HSET', KEYS[2], node_of(sid), cjson.encode(me))
return {'done', table.concat(done)}
