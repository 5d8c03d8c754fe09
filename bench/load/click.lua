-- The requests of a benchmark for wrk, and one line of JSON with what came back.
--
-- wrk … -s click.lua http://127.0.0.1:PORT -- MODE FIRST_ID LAST_ID ITEMS METHOD PATH
--   MODE click   POST /counter/{id}, ids at random
--   MODE body    the same with a body of two bytes, in the segment of the headers
--   MODE check   no body, every answer's status and body compared (slower: for a warm-up round)
--   MODE batch   POST /clicks with ITEMS items an array
--   MODE keyed   the same, each with an Idempotency-Key of its own
--   MODE path    METHOD PATH, the same request always
-- wrk itself counts answers over 399; the length of all answers together is checked by the
-- program that starts wrk, so a wrong answer is seen in the fast mode too.

local PREPARED = 1000000 -- different requests of one run at most
local BODIES = 32 -- different arrays of one run
local counted = '{"status":"counted"}'
local threads = {}
local prepared = {}
local n, i = 0, 0
wrong = 0 -- global: read from the threads in done()

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

local function clicks(first, last)
  local headers = { ["Content-Length"] = "0" }
  for k = 1, math.min(PREPARED, 64 * (last - first + 1)) do
    prepared[k] = wrk.format("POST", "/counter/" .. math.random(first, last), headers)
  end
end

local function bodies(first, last)
  local headers = { ["Content-Type"] = "application/json" }
  for k = 1, math.min(PREPARED, 64 * (last - first + 1)) do
    prepared[k] = wrk.format("POST", "/counter/" .. math.random(first, last), headers, "{}")
  end
end

local function batches(first, last, items)
  local headers = { ["Content-Type"] = "application/json" }
  for k = 1, BODIES do
    local parts = {}
    for j = 1, items do
      parts[j] = '{"bannerID":' .. math.random(first, last) .. ',"count":1}'
    end
    prepared[k] = wrk.format("POST", "/clicks", headers, "[" .. table.concat(parts, ",") .. "]")
  end
end

-- Each key is new: so many digits, counted up from where the clock says.
local function keyed(first, last, items)
  local place = string.rep("k", 24)
  local headers = { ["Content-Type"] = "application/json", ["Idempotency-Key"] = place }
  for k = 1, BODIES do
    local parts = {}
    for j = 1, items do
      parts[j] = '{"bannerID":' .. math.random(first, last) .. ',"count":1}'
    end
    local whole = wrk.format("POST", "/clicks", headers, "[" .. table.concat(parts, ",") .. "]")
    local from, to = whole:find(place, 1, true)
    prepared[k] = { whole:sub(1, from - 1), whole:sub(to + 1) }
  end
  local base = string.format("%012d", os.time())
  local sent = 0
  request = function()
    i = i % n + 1
    sent = sent + 1
    return prepared[i][1] .. base .. string.format("%012d", sent) .. prepared[i][2]
  end
end

function request()
  i = i % n + 1
  return prepared[i]
end

function init(args)
  local mode, first, last = args[1], tonumber(args[2]), tonumber(args[3])
  math.randomseed(os.time() + (number or 0))
  if mode == "batch" then
    batches(first, last, tonumber(args[4]))
  elseif mode == "keyed" then
    keyed(first, last, tonumber(args[4]))
  elseif mode == "body" then
    bodies(first, last)
  elseif mode == "path" then
    prepared[1] = wrk.format(args[5], args[6])
  else
    clicks(first, last)
  end
  n = #prepared
  if mode == "check" then
    response = function(status, headers, body)
      if status ~= 200 or body ~= counted then wrong = wrong + 1 end
    end
  end
end

function done(summary, latency, requests)
  local mismatched = 0
  for _, thread in ipairs(threads) do mismatched = mismatched + thread:get("wrong") end
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"seconds":%.6f,"bytes":%d,"wrong":%d,"over_399":%d,"broken":%d,"timeouts":%d,'
      .. '"p50_us":%.1f,"p99_us":%.1f,"p999_us":%.1f,"max_us":%.1f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, mismatched, e.status,
    e.connect + e.read + e.write, e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
