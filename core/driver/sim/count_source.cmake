# Writes sim/count_source.c in the build tree: the script of counters, as lua/redcache/count.lua
# puts it together. Its twin in the embedded store knows it by its SHA: count_script.c compares.

# What stands between the brackets of `NAME ... [[` in a Lua file.
function(redcache_lua_text file name result)
    file(READ "${PROJECT_SOURCE_DIR}/lua/redcache/${file}" text)
    string(REGEX MATCH "\n(local |present\\.)${name} = [^\n]*\n" head "${text}")
    string(FIND "${text}" "${head}" start)
    string(LENGTH "${head}" length)
    math(EXPR start "${start} + ${length}")
    string(SUBSTRING "${text}" ${start} -1 text)
    string(FIND "${text}" "]]\n" end)
    if(head STREQUAL "" OR end LESS 1)
        message(FATAL_ERROR "lua/redcache/${file} has no script ${name}")
    endif()
    string(SUBSTRING "${text}" 0 ${end} text)
    set(${result} "${text}" PARENT_SCOPE)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
        "${PROJECT_SOURCE_DIR}/lua/redcache/${file}")
endfunction()

redcache_lua_text(present.lua KIND kind)
redcache_lua_text(present.lua NOTHING nothing)
redcache_lua_text(count.lua ADD add)
set(source "${kind}${nothing}${add}")
string(REPLACE "\\" "\\\\" source "${source}")
string(REPLACE "\"" "\\\"" source "${source}")
string(REPLACE "\n" "\\n\"\n    \"" source "${source}")
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/sim/count_source.c" CONTENT
    "/* Made from lua/redcache/count.lua. */
extern const char sim_count_source[];
const char sim_count_source[] =
    \"@source@\";
"
    @ONLY)
