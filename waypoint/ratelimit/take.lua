-- Takes of all buckets or of none. For each key: the mode (t takes what is there, c takes
-- whether it is there or not, g gives back), a tick in microseconds, what flows back with
-- each tick, what must be there, what is taken, and the capacity, all in whole units below
-- 2^53, which Lua's numbers hold exactly. A bucket is "tick debt". The clock is Redis's.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local n = #KEYS
local ticks, debts, ok = {}, {}, 1
for i = 1, n do
  local a = (i - 1) * 6
  local tick = math.floor(now / ARGV[a + 2])
  local debt = 0
  local v = redis.call('GET', KEYS[i])
  if v then
    local last, was = string.match(v, '^(%d+) (%d+)$')
    if last then
      debt = tonumber(was)
      if tick > tonumber(last) then
        debt = math.max(0, debt - (tick - tonumber(last)) * ARGV[a + 3])
      else
        tick = tonumber(last)
      end
    end
  end
  ticks[i], debts[i] = tick, debt
  if ARGV[a + 1] == 't' and debt + ARGV[a + 4] > tonumber(ARGV[a + 6]) then
    ok = 0
  end
end
local out = {ok}
for i = 1, n do
  local a = (i - 1) * 6
  if ok == 1 then
    local debt, capacity = debts[i], tonumber(ARGV[a + 6])
    if ARGV[a + 1] == 'g' then
      debt = math.max(0, debt - ARGV[a + 5])
    elseif ARGV[a + 1] == 'c' then
      debt = math.min(debt + ARGV[a + 5], math.max(debt, capacity * 10))
    else
      debt = debt + ARGV[a + 5]
    end
    debts[i] = debt
    if debt <= 0 then
      redis.call('DEL', KEYS[i])
    else
      local full = math.ceil(debt / ARGV[a + 3] * ARGV[a + 2] / 1000) + 1000
      redis.call('SET', KEYS[i], string.format('%.0f %.0f', ticks[i], debt), 'PX', string.format('%.0f', full))
    end
  end
  out[i + 1] = debts[i]
end
return out
