-- KEYS: value, index of the namespace. ARGV: key, '1' if an old value is expected, old, new, ttl ms.
local value = redis.call('GET', KEYS[1])
if ARGV[2] == '1' then
  if value ~= ARGV[3] then return 0 end
elseif value then return 0 end
if ARGV[5] == '0' then redis.call('SET', KEYS[1], ARGV[4])
else redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5]) end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
