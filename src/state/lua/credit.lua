-- Adds credit once per id. KEYS: balance, credits. ARGV: id, amount, note.
local time = redis.call('TIME')
local entry = cjson.encode({nano_usd = ARGV[2], note = ARGV[3], unix_s = time[1]})
if redis.call('HSETNX', KEYS[2], ARGV[1], entry) == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'credited', ARGV[2])
return 1
