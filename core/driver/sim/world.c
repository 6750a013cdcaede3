#include "driver/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void sim_must(int error)
{
    if (error != 0) {
        fprintf(stderr, "redcache-sim: no memory\n");
        abort();
    }
}

void sim_trace(const struct sim_world *world, const char *format, ...)
{
    va_list arguments;
    if (!world->is_traced)
        return;
    printf("%12.3f  ", (double)world->now_us / 1000);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

void sim_violation(struct sim_world *world, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    sim_trace(world, "VIOLATION: %s", text);
    if (world->oracle.violations++ == 0)
        printf("seed %" PRIu64 ", at %.3f ms: %s\n", world->seed, (double)world->now_us / 1000,
               text);
}

/* ---- time ------------------------------------------------------------------------------------ */

void sim_world_at(struct sim_world *world, struct rc_timer *timer, int64_t at_us)
{
    sim_must(rc_heap_set(&world->agenda, timer, at_us));
}

void sim_world_forget(struct sim_world *world, struct rc_timer *timer)
{
    rc_heap_clear(&world->agenda, timer);
}

int64_t sim_world_unix_us(const struct sim_world *world)
{
    return world->now_us + world->unix_us;
}

bool sim_world_is_healthy(const struct sim_world *world, int64_t for_us)
{
    return world->now_us - world->healthy_since_us > for_us;
}

void sim_world_hurt(struct sim_world *world, int64_t for_us)
{
    int64_t until_us = world->now_us + for_us;
    if (until_us > world->healthy_since_us)
        world->healthy_since_us = until_us;
}

bool sim_world_runs(const struct sim_client *client)
{
    return client->is_alive && client->paused_until_us <= client->world->now_us;
}
