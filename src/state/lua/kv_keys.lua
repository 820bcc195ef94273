-- Lists keys of a namespace; forgets those that expired.
-- KEYS: index of the namespace. ARGV: prefix, limit, start of the value keys' names.
local found, stale, from = {}, {}, '[' .. ARGV[1]
local limit = tonumber(ARGV[2])
local done = limit == 0
while not done do
  local page = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, 256)
  done = #page < 256
  for _, key in ipairs(page) do
    if string.sub(key, 1, #ARGV[1]) ~= ARGV[1] then done = true break end
    if redis.call('EXISTS', ARGV[3] .. key) == 1 then
      found[#found + 1] = key
      if #found == limit then done = true break end
    else stale[#stale + 1] = key end
    from = '(' .. key
  end
end
for _, key in ipairs(stale) do redis.call('ZREM', KEYS[1], key) end
return found
