/*
 * trace - a trace of requests for the hit-ratio bench.
 *
 * What:    reads a file of key ids (flat, little-endian, 64 bits, unit sizes; `.xz` through the xz
 *          program), numbers its keys 0, 1, 2 ..., and decides which requests are writes.
 * Memory:  a trace owns its arrays.
 * Errors:  a bench without its trace has nothing to say: a message, and exit.
 */
#ifndef RC_BENCH_TRACE_H
#define RC_BENCH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRACE_NEVER = UINT32_MAX };

struct trace {
    const char *name;   /* the last part of the path */
    uint64_t *key_ids;  /* of each key, ascending */
    uint32_t *requests; /* key numbers */
    uint32_t count;     /* of requests */
    uint32_t key_count;
    bool *writes;       /* whether this request writes its key, and so invalidates it */
    uint32_t *next_use; /* the next request of this key if that is a read, else TRACE_NEVER */
};

void trace_read(struct trace *trace, const char *path);
void trace_deinit(struct trace *trace);
/* Makes `percent` of the requests writes; the same ones each time. */
void trace_set_writes(struct trace *trace, uint32_t percent);

void *bench_alloc(size_t count, size_t size); /* zeroed */
_Noreturn void bench_fail(const char *what, const char *detail);

#endif
