#include "driver/openssl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "redcache.h"

struct rc_openssl rc_openssl;

static const char *fault = "OpenSSL lacks a function that is needed: install the version that "
                           "redcache was built with, or build redcache again"; /* NULL: none */

static void load(void)
{
#define NAMED(name) {#name, offsetof(struct rc_openssl, name##_call)},
    static const struct {
        const char *name;
        size_t at;
    } calls[] = {RC_OPENSSL_EACH(NAMED)};
    void *library = dlopen(RC_OPENSSL_FILE, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fault = "rediss:// needs OpenSSL " RC_OPENSSL_VERSION ", and " RC_OPENSSL_FILE
                " cannot be loaded: install it (Debian: libssl" RC_OPENSSL_VERSION
                "), and start this process again";
        return;
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *found = dlsym(library, calls[i].name); /* libcrypto's, too: libssl needs it */
        if (found == NULL)
            return;
        memcpy((char *)&rc_openssl + calls[i].at, &found, sizeof found);
    }
    fault = NULL;
}

int rc_openssl_load(const char **why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (fault == NULL)
        return 0;
    *why = fault;
    return RC_ERR_UNAVAILABLE;
}
