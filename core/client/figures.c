/*
 * figures - the public calls that tell how a client does: counters, health, near cache.
 */
#include <stdio.h>
#include <string.h>

#include "client/client.h"

/* The driver of this process, NULL before its first use: asking how a client does starts none. */
static struct rc_driver *open_driver(const struct rc_client *client)
{
    return atomic_load(&client->closed) ? NULL : rc_client_running_driver(client);
}

static void read_stats(struct rc_engine *engine, void *argument)
{
    *(rc_stats *)argument = engine->context.stats;
}

void rc_get_stats(rc_client *client, rc_stats *stats)
{
    struct rc_driver *driver = open_driver(client);
    memset(stats, 0, sizeof *stats);
    if (driver == NULL)
        return;
    rc_driver_call(driver, read_stats, stats);
    stats->inline_turns = atomic_load(&driver->inline_turns);
    stats->reactor_turns = atomic_load(&driver->reactor_turns);
    stats->late_wakes = atomic_load(&driver->late_wakes);
    stats->waiting = (uint64_t)atomic_load(&driver->waiting);
}

static void read_health(struct rc_engine *engine, void *argument)
{
    rc_engine_get_health(engine, argument);
}

void rc_get_health(rc_client *client, rc_health *health)
{
    struct rc_driver *driver = open_driver(client);
    memset(health, 0, sizeof *health);
    if (driver != NULL)
        rc_driver_call(driver, read_health, health);
    else
        snprintf(health->address, sizeof health->address, "%s", client->address.label);
}

static void read_horizon(struct rc_engine *engine, void *argument)
{
    rc_near_stats *stats = argument;
    int64_t asof_us = rc_engine_asof_us(engine);
    if (asof_us > 0)
        stats->horizon_age_us = engine->context.now_us - asof_us;
}

void rc_get_near_stats(rc_client *client, rc_near_stats *stats)
{
    struct rc_driver *driver = open_driver(client);
    memset(stats, 0, sizeof *stats);
    if (client->near != NULL)
        rc_near_read_stats(client->near, stats);
    stats->horizon_age_us = -1;
    if (driver != NULL)
        rc_driver_call(driver, read_horizon, stats);
}
