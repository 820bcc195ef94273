-- Extends an open hold. KEYS: hold, leases. ARGV: id, lease ms.
if redis.call('HGET', KEYS[1], 'state') ~= 'held' then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
return 1
