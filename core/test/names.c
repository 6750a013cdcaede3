/*
 * names - getaddrinfo() that asks a file first: a library for specs, loaded before libc
 * (spec/support/names.lua).
 *
 * What:    REDCACHE_TEST_NAMES names a file with the line "name address"; that name has that
 *          address, all others are libc's to look up.
 * Threads: any.
 * Memory:  libc's, as of any getaddrinfo.
 * Errors:  without the file, or with another one: as libc.
 * Not:     no part of redcache.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static bool find(const char *host, char address[64])
{
    const char *path = getenv("REDCACHE_TEST_NAMES");
    FILE *file = path != NULL && host != NULL ? fopen(path, "r") : NULL;
    char name[256];
    if (file == NULL)
        return false;
    int count = fscanf(file, "%255s %63s", name, address);
    fclose(file);
    return count == 2 && strcmp(name, host) == 0;
}

__attribute__((visibility("default"))) int getaddrinfo(const char *host, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **result)
{
    char address[64];
    lookup *next = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    return next(find(host, address) ? address : host, service, hints, result);
}
