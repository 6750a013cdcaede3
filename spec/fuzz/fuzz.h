/*
 * fuzz - what the fuzz targets share.
 *
 * What:    each target is a file that defines LLVMFuzzerTestOneInput; its seeds lie in the
 *          directory of its name, its words in NAME.dict. FUZZ_CHECK states what holds for every
 *          input; struct fuzz_input is read from the front.
 * Threads: one.
 * Memory:  the input is libFuzzer's, a copy of exactly its length: a byte read behind it is seen by
 *          the address sanitizer.
 * Errors:  a check that does not hold ends the process, which libFuzzer takes for a finding.
 * Not:     no state that outlives an input: a finding must be the same when it is replayed alone.
 */
#ifndef RC_FUZZ_H
#define RC_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_fail(#condition, __FILE__, __LINE__))

static inline void fuzz_fail(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort();
}

struct fuzz_input {
    const uint8_t *at;
    const uint8_t *end;
};

static inline size_t fuzz_left(const struct fuzz_input *input)
{
    return (size_t)(input->end - input->at);
}

/* The next byte; 0 behind the end, so that a short input is one with zeros. */
static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
    return input->at < input->end ? *input->at++ : 0;
}

/* A little-endian number of `width` bytes, at most 8. */
static inline uint64_t fuzz_number(struct fuzz_input *input, int width)
{
    uint64_t number = 0;
    for (int i = 0; i < width; i++)
        number |= (uint64_t)fuzz_byte(input) << (8 * i);
    return number;
}

/* How many of `left` bytes come in the next piece: all with a state of 0, else 1 to 32. */
static inline size_t fuzz_piece(uint32_t *state, size_t left)
{
    if (*state == 0)
        return left;
    *state = *state * 1664525 + 1013904223;
    size_t piece = 1 + (*state >> 27);
    return piece < left ? piece : left;
}

#endif
