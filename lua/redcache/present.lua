-- present - whether a value stands under a key, for the scripts that ask before they write.
--
-- What:   pieces of scripts, to stand before the rest of their source. A running load, its end and
--         a remembered "no such thing" count as nothing: a load and its end only in the exact form
--         that the core gives them, and with a ttl, for all else is somebody's string. The same
--         rule in C: rc_entry_form, and core/store/present.h for the twins.

local present = {}

---kind(v): RC_KIND_* of a string, or of its first 25 bytes; 0 for what is no entry.
present.KIND = [[
local function kind(v)
if #v<24 or string.sub(v,1,2)~='\251\1' then return 0 end
local k=string.byte(v,3)
if k~=3 and k~=4 then return k end
local bare=string.sub(v,4,4)..string.sub(v,6,8)..string.sub(v,17,24)
if bare~=string.rep('\0',12) or k==4 and (#v>24 or string.byte(v,5)>0) then return 0 end
return k
end
]]

---nothing(key, v): whether v, what stands there, is no value; v as kind's, false: no key.
present.NOTHING = present.KIND .. [[
local function nothing(key,v)
local k=v and kind(v)
return not v or k==2 or (k==3 or k==4) and redis.call('PTTL',key)>=0
end
]]

---head(key): the first 25 bytes of what stands there, for kind and nothing; false: no key.
present.HEAD = [[
local function head(key)
local h=redis.call('GETRANGE',key,0,24)
return (h~='' or redis.call('EXISTS',key)==1) and h
end
]]

---grace(h): milliseconds of the grace window that a header tells of; 0 where there is none.
present.GRACE = [[
local function grace(h)
if kind(h)~=1 then return 0 end
local a,b,c,d=string.byte(h,17,20)
return a+256*(b+256*(c+256*d))
end
]]

return present
