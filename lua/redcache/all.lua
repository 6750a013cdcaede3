-- all - require("redcache.all"): the module redcache with each of its files loaded, for programs
-- that then fork, change their root directory, or live on while their files are replaced.

local redcache = require("redcache")
require("redcache.later").all()

return redcache
