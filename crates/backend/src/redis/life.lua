-- The name of this history of the data: it changes when a replica is promoted, and when a primary followed another
-- and leads again, which keeps its process and its connections (core rule 19).
local function replid() return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '' end
