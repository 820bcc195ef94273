-- Sets money aside if balance and caps all have room; otherwise changes nothing.
-- KEYS: balance, hold, leases, then one counter for each cap; all share {account}.
-- ARGV: id, amount, lease ms, '1' if prepaid, then name, limit, ttl ms for each cap.
local state = redis.call('HGET', KEYS[2], 'state')
if state then return {'EXISTS', state} end

-- Comparisons are in doubles: exact while sums stay below 2^53.
local amount = tonumber(ARGV[2])
if ARGV[4] == '1' then
  local b = redis.call('HMGET', KEYS[1], 'credited', 'spent', 'held')
  local used = (tonumber(b[2]) or 0) + (tonumber(b[3]) or 0)
  if used + amount > (tonumber(b[1]) or 0) then
    return {'DENIED', '0', b[1] or '0', b[2] or '0', b[3] or '0'}
  end
end
for i = 4, #KEYS do
  local arg = 5 + 3 * (i - 4)
  local c = redis.call('HMGET', KEYS[i], 'spent', 'held')
  if (tonumber(c[1]) or 0) + (tonumber(c[2]) or 0) + amount > tonumber(ARGV[arg + 1]) then
    return {'DENIED', tostring(i - 3), ARGV[arg + 1], c[1] or '0', c[2] or '0'}
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local caps = {}
for i = 4, #KEYS do
  local arg = 5 + 3 * (i - 4)
  -- `born` tells this counter from a later one of the same name.
  if redis.call('HSETNX', KEYS[i], 'born', time[1] .. '.' .. time[2]) == 1 and ARGV[arg + 2] ~= '0' then
    redis.call('PEXPIRE', KEYS[i], ARGV[arg + 2])
  end
  redis.call('HINCRBY', KEYS[i], 'held', ARGV[2])
  caps[#caps + 1] = {ARGV[arg], redis.call('HGET', KEYS[i], 'born')}
end
-- Amounts pass as strings: a Lua number would lose digits above 2^53.
redis.call('HINCRBY', KEYS[1], 'held', ARGV[2])
redis.call('HSET', KEYS[2], 'state', 'held', 'amount', ARGV[2], 'caps', cjson.encode(caps))
redis.call('ZADD', KEYS[3], string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
return {'HELD'}
