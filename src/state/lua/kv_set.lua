-- KEYS: value, index of the namespace. ARGV: key, value, ttl ms (0: none).
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
