-- What the control scripts share; put before each of them. KEYS[1] is always {roost}:ring.
-- Lua's numbers are doubles and print with an exponent from 1e14 on; epochs go to 2^53.
local function num(n) return string.format('%.0f', n) end

-- A sid is <node>/<born>/<random>.
local function node_of(sid) return string.match(sid, '^([^/]*)') end
local function born_of(sid) return tonumber(string.match(sid, '^[^/]*/(%d+)/') or '0') end

-- The registered row of the node whose life this sid is, or nil.
local function node_row(nodes, sid)
  local row = redis.call('HGET', nodes, node_of(sid))
  return row and cjson.decode(row) or nil
end

-- Core rule 21: only a later sid of the same node ends a sid, or being revoked.
local function ended(row, sid)
  if row.sid == sid then return row.state == 'revoked' end
  return born_of(row.sid) > born_of(sid)
end

-- Whether this token leads.
local function leads(leader, token)
  local row = redis.call('GET', leader)
  return row and cjson.decode(row).token == token
end

-- Readers find a hint that was refused by themselves.
local function hint() redis.pcall('PUBLISH', channels .. '{roost}:hint', '') end

-- Core rule 19: every control write names the data set it knows. Under another history than it was named under there
-- is none, until it is named anew (data_set.lua).
local ring = redis.call('HMGET', KEYS[1], 'gen', 'replid')
local gen = ring[1]
if ring[2] and ring[2] ~= replid() then gen = false end
