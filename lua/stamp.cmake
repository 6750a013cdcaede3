# stamp - later.lua as it is installed: with the digest of all Lua files behind the version in its RELEASE.
#
#     cmake -DFROM=lua -DTO=FILE -P lua/stamp.cmake

file(GLOB_RECURSE files RELATIVE "${FROM}" "${FROM}/*.lua")
list(SORT files)
set(listed "")
foreach(file IN LISTS files)
    file(SHA256 "${FROM}/${file}" digest)
    string(APPEND listed "${digest} ${file}\n")
endforeach()
string(SHA256 digest "${listed}")
string(SUBSTRING "${digest}" 0 12 digest)
file(READ "${FROM}/redcache/later.lua" text)
string(REGEX REPLACE "(\nlocal RELEASE = \"[^\"]+)\"" "\\1 ${digest}\"" stamped "${text}")
if(stamped STREQUAL text)
    message(FATAL_ERROR "could not stamp later.lua: it has no RELEASE")
endif()
file(WRITE "${TO}" "${stamped}")
