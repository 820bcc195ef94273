-- KEYS: value, index of the namespace. ARGV: key, delta, ttl ms for a new key (0: none).
local is_new = redis.call('EXISTS', KEYS[1]) == 0
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[2])
if type(sum) == 'table' and sum.err then return false end
if is_new then
  if ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
end
-- As text: a Lua number would lose digits.
return redis.call('GET', KEYS[1])
