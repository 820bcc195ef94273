-- Frees holds past their lease, at most 100; a later settlement still books.
-- KEYS: balance, leases. ARGV: ms for which a late settlement is waited for.
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(due) do
  local key = KEYS[1] .. ':hold:' .. id
  local hold = redis.call('HMGET', key, 'state', 'amount', 'caps')
  if hold[1] == 'held' then
    if hold[2] ~= '0' then
      redis.call('HINCRBY', KEYS[1], 'held', '-' .. hold[2])
      for _, cap in ipairs(cjson.decode(hold[3])) do
        local counter = KEYS[1] .. ':cap:' .. cap[1]
        if redis.call('HGET', counter, 'born') == cap[2] then
          redis.call('HINCRBY', counter, 'held', '-' .. hold[2])
        end
      end
    end
    redis.call('HSET', key, 'state', 'expired')
    redis.call('PEXPIRE', key, ARGV[1])
  end
  redis.call('ZREM', KEYS[2], id)
end
return #due
