/**
 * What is done inside Redis, where a script sees one consistent state of a cell.
 *
 * A cell's book-keeping is three keys of one slot: its state (a hash), its log (tag → sequence of its last
 * invalidation), its position (`incarnation:sequence`, kept in step by the same scripts, so that reads need no script).
 * Any of them may be lost at any time: evicted, flushed, gone back to an older snapshot, promoted on another server. So
 * every script begins by **opening** the cell: its parts must belong together and must have been written by this server,
 * or the cell begins anew, with a new incarnation and no memory. What was stored before is then a miss; nothing older
 * ever becomes fresh again.
 *
 * A sequence is the server's time in microseconds, and always greater than the one before: an order within one cell. No
 * clock is compared with another.
 *
 * | field of the state | is |
 * |---|---|
 * | `incarnation` | a random number, new each time the cell begins |
 * | `sequence` | of the last invalidation |
 * | `floor` | what was invalidated at or below it has been forgotten: an entry that began below it is a miss |
 * | `server` | the replication id of the server that wrote it: a restart or a promotion changes it |
 * | `longest` | for how long an entry was ever kept, in milliseconds, or `forever`: rows older than that are dropped |
 * | `pattern` | the sequence of the last pattern |
 * | `groups`, `@table` | what processes have declared, see versions.ts: each with `=`, the sequence at which it was, and a comma |
 */
import type { Redis } from "ioredis"

/** The keys of a cell, which every script takes first. */
export interface CellKeys {
  readonly state: string
  readonly log: string
  readonly position: string
}

/** How much longer than the longest time to live a row is remembered, so that slow lookups can be judged: 60 s. */
const slack = 60_000_000

/** For how long what was declared is kept beyond the longest time to live: a day. */
const keptFor = 86_400_000_000

const prelude = `
local H, T, N = KEYS[1], KEYS[2], KEYS[3]
local function num(x) return string.format('%.0f', x) end
local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end
-- A restart and a promotion give a server another replication id. Where it may not be asked for, it is always the same.
local info = redis.pcall('INFO', 'replication')
local server = 'unknown'
if type(info) == 'string' then
  -- A replica may lag behind what was acknowledged.
  if string.find(info, 'role:slave', 1, true) then return redis.error_reply('READONLY It is a replica.') end
  local _, last = string.find(info, 'master_replid:', 1, true)
  server = string.sub(info, last + 1, last + 40)
end
local function begin(incarnation)
  local at = num(now())
  redis.call('DEL', H, T, N)
  redis.call('HSET', H, 'incarnation', incarnation, 'sequence', at, 'floor', at, 'server', server, 'longest', 0, 'pattern', 0)
  redis.call('ZADD', T, incarnation, '!')
  redis.call('SET', N, incarnation .. ':' .. at)
  return { incarnation, at, at, server, '0', '0' }
end
-- Incarnation, sequence, floor, server, longest and pattern of the cell, which begins anew unless its parts belong
-- together.
local function open(incarnation)
  local m = redis.pcall('HMGET', H, 'incarnation', 'sequence', 'floor', 'server', 'longest', 'pattern')
  if m.err or not m[1] or m[4] ~= server then return begin(incarnation) end
  for _, i in ipairs({ 2, 3, 5, 6 }) do
    if not tonumber(m[i]) and not (i == 5 and m[i] == 'forever') then return begin(incarnation) end
  end
  local own = redis.pcall('ZSCORE', T, '!')
  if type(own) ~= 'string' or num(own) ~= m[1] then return begin(incarnation) end
  local position = m[1] .. ':' .. m[2]
  if redis.pcall('GET', N) ~= position then redis.call('SET', N, position) end
  return m
end
-- What stands in a field of declarations and is not too old for an entry to rest on it, each with the sequence at which it
-- was declared. By the last sequence and not by the clock, which may be set.
local function declared(field, longest, last)
  local known = {}
  for what, at in string.gmatch(redis.call('HGET', H, field) or '', '([^=,]+)=(%d+),') do
    if longest == 'forever' or last - at < longest * 1000 + ${keptFor} then known[#known + 1] = { what, at } end
  end
  return known
end
-- Who holds a lease; something else under its name, which would not end by itself, is thrown away.
local function holder(L)
  local held = redis.pcall('GET', L)
  if held and (type(held) == 'table' or redis.call('PTTL', L) == -1) then redis.call('DEL', L) return false end
  return held
end
-- A lease is a token, the position at which its lookup began, and a mark if somebody waits for it.
local function isOf(held, token) return string.sub(held, 1, #token + 1) == token .. '@' end
-- Gives a lease back, and wakes those who wait for it: they have marked it.
local function release(L, token, channel, what)
  local held = holder(L)
  if not held or not isOf(held, token) then return end
  redis.call('DEL', L)
  if string.sub(held, -1) == '+' then redis.pcall('PUBLISH', channel, what .. '\\n' .. L) end
end
-- True when one of the members ARGV[first..last] was invalidated after a sequence.
local function overtaken(after, first, last)
  for i = first, last, 1000 do
    local scores = redis.call('ZMSCORE', T, unpack(ARGV, i, math.min(i + 999, last)))
    for j = 1, #scores do
      if scores[j] and tonumber(scores[j]) > after then return true end
    end
  end
  return false
end
`

const bodies = {
  /**
   * What was invalidated since. Takes a new incarnation, the incarnation and cursor that are known, and the most rows;
   * answers incarnation, sequence, floor, the server's time in microseconds, and rows in ascending order.
   */
  sync: `
local m = open(ARGV[1])
local cursor = ARGV[3]
if ARGV[2] ~= m[1] or tonumber(cursor) < tonumber(m[3]) then cursor = m[3] end
return { m[1], m[2], m[3], num(now()), redis.call('ZRANGE', T, '(' .. cursor, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4], 'WITHSCORES') }`,

  /**
   * Judges entries for a process that has not read the log yet, by their headers alone. Takes a new incarnation and the
   * members of their keys; answers for each incarnation and start, if it is fresh, or nothing, also where it cannot tell.
   */
  judge: `
local m = open(ARGV[1])
local floor, pattern = tonumber(m[3]), tonumber(m[6])
-- Where an entry began, if it is fresh. Throws for what is no entry.
local function judge(E, key)
  local head = redis.call('GETRANGE', E, 0, 4095)
  local header = cjson.decode(string.sub(head, 1, string.find(head, '\\n', 1, true) - 1))
  local startedAt, tags = header[3], header[11]
  if header[2] ~= m[1] or startedAt < floor or startedAt < pattern or #tags > 900 then return nil end
  local members = { key }
  for j = 1, #tags do members[j + 1] = ':' .. tags[j] end
  local scores = redis.call('ZMSCORE', T, unpack(members))
  for j = 1, #scores do
    if scores[j] and tonumber(scores[j]) > startedAt then return nil end
  end
  return startedAt
end
local out = {}
for i = 4, #KEYS do
  local isEntry, startedAt = pcall(judge, KEYS[i], ARGV[i - 2])
  out[i - 3] = isEntry and startedAt and m[1] .. ':' .. num(startedAt) or ''
end
return out`,

  /**
   * Takes leases, each under its token, if nobody holds them. Takes a new incarnation, the lease's length in
   * milliseconds, and tokens; answers incarnation, sequence, and for each 1 or 0. A lease that somebody else holds is
   * marked, so that its holder wakes those who wait.
   */
  acquire: `
local m = open(ARGV[1])
local out = { m[1], m[2] }
local a = 3
for i = 4, #KEYS do
  local held, count = holder(KEYS[i]), tonumber(ARGV[a + 1])
  local incarnation, startedAt
  if held then incarnation, startedAt = string.match(held, '@(%d+):(%d+)') end
  local value = ARGV[a] .. '@' .. m[1] .. ':' .. m[2]
  if not held then
    redis.call('SET', KEYS[i], value, 'PX', ARGV[2])
    out[#out + 1] = 1
  elseif incarnation ~= m[1] or overtaken(tonumber(startedAt), a + 2, a + 1 + count) then
    -- Its answer cannot be stored any more. Those who wait are woken by this one's end.
    redis.call('SET', KEYS[i], string.sub(held, -1) == '+' and value .. '+' or value, 'PX', ARGV[2])
    out[#out + 1] = 1
  else
    if string.sub(held, -1) ~= '+' then redis.call('APPEND', KEYS[i], '+') end
    out[#out + 1] = 0
  end
  a = a + 2 + count
end
return out`,

  /**
   * Stores answers, each unless something it rests on was invalidated since its lookup began, and gives their leases
   * back. Takes a new incarnation, the channel, and for each answer: incarnation, start, token, milliseconds to keep it
   * (0 for ever), the sequence up to which patterns have been looked at, its bytes, how many members it rests on, and
   * these. Answers for each `stored`, `overtaken`, or `patterns:` and the sequence up to which they are to be looked at.
   */
  store: `
local m = open(ARGV[1])
local longest, pattern = m[5], tonumber(m[6])
local out = {}
local a = 3
for i = 4, #KEYS, 2 do
  local L, E = KEYS[i], KEYS[i + 1]
  local startedAt, token, keep, seen, count = tonumber(ARGV[a + 1]), ARGV[a + 2], ARGV[a + 3], tonumber(ARGV[a + 4]), tonumber(ARGV[a + 6])
  local verdict = 'stored'
  if ARGV[a] ~= m[1] or startedAt < tonumber(m[3]) or startedAt > tonumber(m[2]) then verdict = 'overtaken'
  elseif overtaken(startedAt, a + 7, a + 6 + count) then verdict = 'overtaken'
  elseif pattern > startedAt and pattern > seen then verdict = 'patterns:' .. num(pattern)
  elseif keep == '0' then
    redis.call('SET', E, ARGV[a + 5])
    longest = 'forever'
  else
    redis.call('SET', E, ARGV[a + 5], 'PX', keep)
    if longest ~= 'forever' and tonumber(keep) > tonumber(longest) then longest = keep end
  end
  if token ~= '' and string.sub(verdict, 1, 8) ~= 'patterns' then release(L, token, ARGV[2], 'released') end
  out[#out + 1] = verdict
  a = a + 7 + count
end
if longest ~= m[5] then redis.call('HSET', H, 'longest', longest) end
return out`,

  /**
   * Invalidates. Takes a new incarnation, how many rows the log may have, the channel, what to tell there (nothing if
   * empty), an incarnation, a start and a number of members to look at first, these, what is declared of the tables that
   * are told of (see versions.ts), and the members to invalidate. Answers incarnation, the sequence before and now, how
   * many rows the log has, 1 if one of the members looked at had been invalidated since the start, and the members that
   * were invalidated because of what others have declared.
   */
  invalidate: `
local m = open(ARGV[1])
local count = tonumber(ARGV[7])
local checked = 0
if ARGV[5] ~= '' then
  local startedAt = tonumber(ARGV[6])
  if ARGV[5] ~= m[1] or startedAt < tonumber(m[3]) or startedAt > tonumber(m[2]) or overtaken(startedAt, 8, 7 + count)
    or tonumber(m[6]) > startedAt then checked = 1 end
end
local time = now()
local n = num(math.max(m[2] + 1, time))
local fields = { 'sequence', n }
local others = {}
local a = 9 + count
for _ = 1, tonumber(ARGV[8 + count]) do
  local name, own, groups, members = ARGV[a], ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3])
  for _, one in ipairs(declared('@' .. name, m[5], m[2])) do
    local key = string.sub(one[1], 2)
    if not string.find(own, ',' .. key .. ',', 1, true) then
      others[#others + 1] = string.sub(one[1], 1, 1) == 'k' and ':@' .. name .. '!' .. key or ':@' .. name .. ':?'
    end
  end
  if members > 0 then
    for _, one in ipairs(declared('groups', m[5], m[2])) do
      if groups == '' or not string.find(one[1], '~' .. name .. ':' .. groups .. '~', 1, true) then
        for j = a + 4, a + 3 + members do others[#others + 1] = ARGV[j] end
        break
      end
    end
  end
  a = a + 4 + members
end
local function invalidate(list, first, last)
  for i = first, last, 1000 do
    local z = {}
    for j = i, math.min(i + 999, last) do
      z[#z + 1] = n
      z[#z + 1] = list[j]
      if string.sub(list[j], 1, 1) == '~' then fields[3], fields[4] = 'pattern', n end
    end
    redis.call('ZADD', T, unpack(z))
  end
end
invalidate(ARGV, a, #ARGV)
invalidate(others, 1, #others)
-- The oldest rows go: those too many, and those that no entry can be older than.
local rows = redis.call('ZCARD', T) - 1
local cap, longest = tonumber(ARGV[2]), m[5]
local drop = rows > cap and rows - cap + math.min(math.floor(cap / 16), 500) or 0
if longest ~= 'forever' then
  local aged = redis.call('ZCOUNT', T, '(' .. m[1], num(time - longest * 1000 - ${slack}))
  drop = math.max(drop, math.min(aged, 500))
end
if drop > 0 then
  local highest = redis.call('ZRANGE', T, drop, drop, 'WITHSCORES')
  redis.call('ZREMRANGEBYRANK', T, 1, drop)
  fields[#fields + 1], fields[#fields + 2] = 'floor', num(highest[2])
end
redis.call('HSET', H, unpack(fields))
redis.call('SET', N, m[1] .. ':' .. n)
if ARGV[4] ~= '' then 
  -- Who hears it knows of nothing else that was invalidated: then it begins nowhere, and nobody goes on from it.
  local before = #others == 0 and m[2] or '-'
  redis.pcall('PUBLISH', ARGV[3], table.concat({ 'invalidated', m[1], before, n, ARGV[4] }, '\\n'))
end
return { m[1], m[2], n, rows - drop, checked, others }`,

  /**
   * Makes known what a process declares: fields of the state and what stands in them, in turn. Takes a new incarnation
   * and these; answers incarnation and sequence. What is too old for an entry to rest on it is forgotten.
   */
  declare: `
local m = open(ARGV[1])
local fields = {}
for i = 2, #ARGV, 2 do
  local field, what = ARGV[i], ARGV[i + 1]
  fields[field] = fields[field] or {}
  fields[field][what] = m[2]
end
for field, own in pairs(fields) do
  local text = ''
  for _, one in ipairs(declared(field, m[5], m[2])) do own[one[1]] = own[one[1]] or one[2] end
  for what, at in pairs(own) do text = text .. what .. '=' .. at .. ',' end
  redis.call('HSET', H, field, text)
end
return { m[1], m[2] }`,

  /** Begins the cell anew, whatever it holds. Takes a new incarnation. */
  reset: `return begin(ARGV[1])`,

  /** Keeps leases that are held. Takes the lease's length and tokens; answers how many were. */
  renew: `
local kept = 0
for i = 4, #KEYS do
  local held = holder(KEYS[i])
  if held and isOf(held, ARGV[i - 2]) then kept = kept + redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
end
return kept`,

  /** Gives leases back without an answer. Takes the channel, and for each a token and what to tell those who wait. */
  release: `for i = 4, #KEYS do release(KEYS[i], ARGV[2 * i - 6], ARGV[1], ARGV[2 * i - 5]) end return 1`,

  /** The log in numbers. Takes a new incarnation; answers the server's time, rows, floor, the oldest row's sequence. */
  measure: `
local m = open(ARGV[1])
local oldest = redis.call('ZRANGE', T, 1, 1, 'WITHSCORES')
return { num(now()), redis.call('ZCARD', T) - 1, m[3], oldest[2] and num(oldest[2]) or m[2] }`
}

/** The name of a script. */
export type Name = keyof typeof bodies

/** The scripts, whole. */
export const sources: Record<Name, string> = Object.fromEntries(
  Object.entries(bodies).map(([name, body]) => [name, prelude + body])
) as Record<Name, string>

const command = (name: string): string => `cacheme${name[0]!.toUpperCase()}${name.slice(1)}`

/** Makes the scripts commands of a connection: sent by their digest, loaded where a server does not know them yet. */
export const define = (redis: Redis): void => {
  for (const [name, lua] of Object.entries(sources)) redis.defineCommand(command(name), { lua })
}

/** Runs a script on a cell. Rejects what is no answer of it: something else than Redis may be there. */
export const run = async <A>(
  redis: Redis,
  name: Name,
  { state, log, position }: CellKeys,
  keys: ReadonlyArray<string>,
  args: ReadonlyArray<string | number | Buffer>
): Promise<A> => {
  // ioredis flattens a list, and copies arguments several times.
  const list = [state, log, position, ...keys, ...args]
  const reply: unknown = await (redis as any)[command(name)](3 + keys.length, list)
  if (!isAnswer[name](reply, keys.length)) throw new Error(`it does not answer the script "${name}"`)
  return reply as A
}

const isDigits = (u: unknown): boolean => typeof u === "string" && /^\d+$/.test(u)
const isNumber = (u: unknown): boolean => typeof u === "number"
const isText = (u: unknown): boolean => typeof u === "string"
const isList = (u: unknown, length: number, isOne: (u: unknown) => boolean): boolean =>
  Array.isArray(u) && u.length === length && u.every(isOne)
const isTuple = (u: unknown, ...parts: ReadonlyArray<(u: unknown) => boolean>): boolean =>
  Array.isArray(u) && u.length === parts.length && parts.every((isPart, i) => isPart(u[i]))

const isAnswer: Record<Name, (reply: unknown, keys: number) => boolean> = {
  sync: (reply) =>
    isTuple(reply, isDigits, isDigits, isDigits, isDigits, (rows) =>
      isList(rows, Array.isArray(rows) ? rows.length : 0, isText)
    ),
  judge: (reply, keys) => isList(reply, keys, isText),
  acquire: (reply, keys) =>
    Array.isArray(reply) &&
    isTuple(reply.slice(0, 2), isDigits, isDigits) &&
    isList(reply.slice(2), keys, isNumber),
  store: (reply, keys) => isList(reply, keys / 2, isText),
  invalidate: (reply) =>
    isTuple(reply, isDigits, isDigits, isDigits, isNumber, isNumber, (others) =>
      isList(others, Array.isArray(others) ? others.length : 0, isText)
    ),
  declare: (reply) => isTuple(reply, isDigits, isDigits),
  reset: (reply) => Array.isArray(reply) && reply.length > 0 && reply.every(isText),
  renew: isNumber,
  release: isNumber,
  measure: (reply) => isTuple(reply, isDigits, isNumber, isDigits, isDigits)
}
