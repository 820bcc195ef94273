-- Moves held to spent and appends the usage row, once.
-- KEYS: balance, hold, leases, usage; all share {account}.
-- ARGV: id, amount, ms for which a repetition is recognised, row.
local hold = redis.call('HMGET', KEYS[2], 'state', 'amount', 'caps')
if hold[1] == 'settled' then return 'DUPLICATE' end

local freed = '0'
if hold[1] == 'held' then freed = hold[2] end
local function charge(key)
  -- '-0' is no integer to Redis.
  if freed ~= '0' then redis.call('HINCRBY', key, 'held', '-' .. freed) end
  if ARGV[2] ~= '0' then redis.call('HINCRBY', key, 'spent', ARGV[2]) end
end

charge(KEYS[1])
if hold[3] then
  for _, cap in ipairs(cjson.decode(hold[3])) do
    -- The name of the key is known only here; it shares the hash tag. A counter
    -- that is gone or new belongs to another window: the row is enough.
    local key = KEYS[1] .. ':cap:' .. cap[1]
    if redis.call('HGET', key, 'born') == cap[2] then charge(key) end
  end
end
redis.call('HSET', KEYS[2], 'state', 'settled')
redis.call('HDEL', KEYS[2], 'caps')
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[4], '*', 'row', ARGV[4])
return 'BOOKED'
