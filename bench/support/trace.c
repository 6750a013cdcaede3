#include "support/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_IDS = 4096, WRITE_SEED = 20231023 };

void bench_fail(const char *what, const char *detail)
{
    fprintf(stderr, "%s: %s\n", what, detail);
    exit(2);
}

void *bench_alloc(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL)
        bench_fail("could not allocate", "no memory");
    return memory;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* The path goes through a shell: in quotes, so it must have none. */
static FILE *open_packed(const char *path)
{
    char command[4096];
    int len = snprintf(command, sizeof(command), "xz -dc '%s'", path);
    if (strchr(path, '\'') != NULL || len < 0 || (size_t)len >= sizeof(command))
        bench_fail("could not open the trace: odd path", path);
    return popen(command, "r");
}

static uint64_t decode(const unsigned char *bytes)
{
    uint64_t id = 0;
    for (int i = 7; i >= 0; i--)
        id = id << 8 | bytes[i];
    return id;
}

/* All ids of the file; the caller frees them. */
static uint64_t *read_ids(const char *path, size_t *count)
{
    bool is_packed = ends_with(path, ".xz");
    FILE *file = is_packed ? open_packed(path) : fopen(path, "rb");
    if (file == NULL)
        bench_fail("could not open the trace", path);
    unsigned char bytes[READ_IDS * 8];
    uint64_t *ids = NULL;
    size_t n = 0, room = 0, got;
    while ((got = fread(bytes, 8, READ_IDS, file)) > 0) {
        if (n + got > room) {
            room = 2 * room + READ_IDS;
            ids = realloc(ids, room * sizeof(*ids));
            if (ids == NULL)
                bench_fail("could not read the trace: no memory", path);
        }
        for (size_t i = 0; i < got; i++)
            ids[n++] = decode(bytes + 8 * i);
    }
    int status = is_packed ? pclose(file) : fclose(file);
    if (status != 0 || n == 0 || n >= TRACE_NEVER)
        bench_fail("could not read the trace", path);
    *count = n;
    return ids;
}

static int compare_ids(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

void trace_read(struct trace *trace, const char *path)
{
    size_t count;
    uint64_t *ids = read_ids(path, &count);
    const char *slash = strrchr(path, '/');
    trace->name = slash != NULL ? slash + 1 : path;
    trace->count = (uint32_t)count;
    trace->key_ids = bench_alloc(count, sizeof(uint64_t));
    memcpy(trace->key_ids, ids, count * sizeof(uint64_t));
    qsort(trace->key_ids, count, sizeof(uint64_t), compare_ids);
    uint32_t keys = 1;
    for (size_t i = 1; i < count; i++)
        if (trace->key_ids[i] != trace->key_ids[keys - 1])
            trace->key_ids[keys++] = trace->key_ids[i];
    trace->key_count = keys;
    trace->requests = bench_alloc(count, sizeof(uint32_t));
    for (size_t i = 0; i < count; i++) {
        uint64_t *found = bsearch(&ids[i], trace->key_ids, keys, sizeof(uint64_t), compare_ids);
        trace->requests[i] = (uint32_t)(found - trace->key_ids);
    }
    trace->writes = bench_alloc(count, sizeof(bool));
    trace->next_use = bench_alloc(count, sizeof(uint32_t));
    free(ids);
}

void trace_deinit(struct trace *trace)
{
    free(trace->key_ids);
    free(trace->requests);
    free(trace->writes);
    free(trace->next_use);
}

/* SplitMix64. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t word = *state += UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

void trace_set_writes(struct trace *trace, uint32_t percent)
{
    uint64_t random = WRITE_SEED;
    for (uint32_t i = 0; i < trace->count; i++)
        trace->writes[i] = next_random(&random) % 100 < percent;
    uint32_t *next = bench_alloc(trace->key_count, sizeof(uint32_t));
    for (uint32_t key = 0; key < trace->key_count; key++)
        next[key] = TRACE_NEVER;
    for (uint32_t i = trace->count; i-- > 0;) {
        uint32_t key = trace->requests[i];
        trace->next_use[i] = next[key];
        next[key] = trace->writes[i] ? TRACE_NEVER : i;
    }
    free(next);
}
