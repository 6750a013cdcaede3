#include "driver/random.h"

#include <sys/random.h>

int rc_random_bytes(void *bytes, size_t len)
{
    return getentropy(bytes, len) == 0 ? 0 : RC_ERR_UNAVAILABLE;
}
