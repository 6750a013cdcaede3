/*
 * request - reads one command after the other out of a stream of bytes.
 *
 * What:    RESP arrays of bulk strings, cut anywhere; goes on where it stopped.
 * Threads: the connection's owner.
 * Memory:  owns the list of arguments; their bytes are the caller's, and stand where the caller
 *          has them.
 * Errors:  RC_ERR_PROTOCOL with Redis' own words; RC_ERR_NOMEM. The stream is useless then.
 * Not:     no inline commands: bytes that begin with anything but '*' are no RESP to us.
 */
#ifndef RC_REQUEST_H
#define RC_REQUEST_H

#include "store/text.h"

struct rc_request {
    struct rc_text *args; /* of the command that is whole */
    uint32_t count;
    uint32_t room;
    /* Of the command that is being read. */
    size_t at;       /* how many of its bytes are understood */
    int64_t missing; /* arguments still to come; -1: its head is */
    int64_t bulk;    /* length of the argument whose head was read; -1: none was */
    char wrong[64];  /* why it is RC_ERR_PROTOCOL */
};

void rc_request_init(struct rc_request *request);
void rc_request_deinit(struct rc_request *request);
/* Reads at most one command. `bytes` begins where the unfinished one does. 1: `args` are whole, and
   `used` bytes long; 0: more must come. */
int rc_request_read(struct rc_request *request, const char *bytes, size_t len, size_t *used);

#endif
