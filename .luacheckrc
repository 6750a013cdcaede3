std = "luajit"
max_line_length = 100
cache = false
files["spec"] = { std = "+busted" }
files["bench"] = { std = "luajit" }
files["bench/support/nginx_side.lua"] = { std = "ngx_lua" }
files["lua/redcache/scheduler/resty"] = { std = "ngx_lua" }
files["spec/nginx"] = { std = "ngx_lua+busted" }
files["examples"] = { std = "ngx_lua" }
