/*
 * bed - an engine whose connections a test moves itself, in one thread, under a clock of its own.
 *
 * What:    turns the engine until nothing moves, and lets time pass. The test says what stands at
 *          the other end of a link: embedded stores, or what it has scripted.
 * Threads: one.
 * Memory:  the bed owns the engine, the test what its links lead to.
 * Errors:  a test program without memory is at its end: exit.
 * Not:     no servers: peer.h has one for those that need one server.
 */
#ifndef RC_BED_H
#define RC_BED_H

#include <stdatomic.h>

#include "engine/engine.h"

struct bed {
    _Atomic int64_t now_us; /* as the clock of a near cache has it */
    struct rc_engine engine;
    /* Opens or closes what the link wants, and moves its bytes. True: something has moved. */
    bool (*move)(struct rc_link *link);
    int finished; /* ops */
};

void bed_must(int error);
/* For a start: a command timeout of 500 ms and so on. */
rc_options bed_options(void);
void bed_init(struct bed *bed, bool (*move)(struct rc_link *link), const char *url,
              const rc_options *options, struct rc_near *near);
void bed_run(struct bed *bed);              /* until nothing moves; no time passes */
void bed_pass(struct bed *bed, int64_t ms); /* a millisecond at a time */
void bed_submit(struct bed *bed, struct rc_op *op);
/* What a server has said goes to the link. True: there was something. */
bool bed_deliver(struct rc_link *link, struct rc_buf *output);
/* Ends what runs; the test hangs up, and ends the engine by bed_deinit. */
void bed_close(struct bed *bed);
void bed_deinit(struct bed *bed);

#endif
