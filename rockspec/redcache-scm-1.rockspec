rockspec_format = "3.0"
package = "redcache"
version = "scm-1"
source = {
    url = "git+file://.", -- for `luarocks make` in a checkout, after script/setup
}
description = {
    summary = "A cache engine on Redis: one load for many callers, no stale sets, honest locks",
    license = "MIT",
}
supported_platforms = { "linux" }
dependencies = {
    "lua == 5.1", -- LuaJIT 2.1
}
build = {
    type = "cmake",
    variables = {
        CMAKE_BUILD_TYPE = "RelWithDebInfo",
        CMAKE_INSTALL_PREFIX = "$(PREFIX)",
        LUADIR = "$(LUADIR)",
        LIBDIR = "$(LIBDIR)",
        RC_LUA_ONLY = "ON",
        RC_TESTS = "OFF",
    },
}
