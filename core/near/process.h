/*
 * process - whether a process that left its number in shared memory is still there.
 *
 * What:    the number and start of a process, asked of the kernel.
 * Threads: any.
 * Memory:  none.
 * Errors:  0, or "alive", where the kernel does not tell.
 * Not:     not for processes of another pid namespace.
 */
#ifndef RC_PROCESS_H
#define RC_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* When it started, in ticks since boot; 0: not known. With the number it names a process. */
uint64_t rc_process_started(int32_t pid);
bool rc_process_is_alive(int32_t pid, uint64_t started);

#endif
