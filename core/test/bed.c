#include "test/bed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/script.h"

enum { ROUNDS_MAX = 1000 };

void bed_must(int error)
{
    if (error < 0) {
        fprintf(stderr, "the bed has no memory\n");
        exit(1);
    }
}

rc_options bed_options(void)
{
    return (rc_options){.connect_timeout_ms = 1000,
                        .command_timeout_ms = 500,
                        .max_value_bytes = 1 << 20,
                        .max_key_bytes = 65536,
                        .max_queue = 1000,
                        .degraded_ttl_ms = 1000};
}

void bed_init(struct bed *bed, bool (*move)(struct rc_link *link), const char *url,
              const rc_options *options, struct rc_near *near)
{
    const struct rc_seed seed = {{3, 4}};
    struct rc_address address;
    const char *why;
    bed->now_us = INT64_C(1000) * 1000 * 1000;
    bed->move = move;
    bed->finished = 0;
    rc_scripts_init();
    bed_must(rc_address_parse(&address, url, strlen(url), &why));
    bed_must(rc_engine_init(&bed->engine, options, &address, near, &seed, bed->now_us));
}

static void release_gone(struct rc_topology *topology)
{
    struct rc_list *place = topology->all.next;
    while (place != &topology->all) {
        struct rc_link *link = RC_CONTAINER(place, struct rc_link, place);
        place = place->next;
        if (link->is_leaving && !link->wants_close)
            rc_topology_release(topology, link);
    }
}

void bed_run(struct bed *bed)
{
    struct rc_engine *engine = &bed->engine;
    bool moved = true;
    for (int i = 0; moved; i++) {
        if (i == ROUNDS_MAX) {
            fprintf(stderr, "somebody turns in a circle\n");
            exit(1);
        }
        rc_engine_set_time(engine, bed->now_us);
        moved = rc_engine_deadline(engine) <= bed->now_us;
        rc_engine_run(engine);
        while (rc_engine_take_finished(engine) != NULL) {
            bed->finished++;
            moved = true;
        }
        RC_TOPOLOGY_EACH(link, &engine->topology) {
            moved |= bed->move(link);
        }
        release_gone(&engine->topology);
    }
}

void bed_pass(struct bed *bed, int64_t ms)
{
    for (int64_t i = 0; i < ms; i++) {
        bed->now_us += 1000;
        bed_run(bed);
    }
}

void bed_submit(struct bed *bed, struct rc_op *op)
{
    rc_engine_set_time(&bed->engine, bed->now_us);
    rc_engine_submit(&bed->engine, op);
}

bool bed_deliver(struct rc_link *link, struct rc_buf *output)
{
    struct rc_buf taken = *output;
    if (rc_buf_len(&taken) == 0)
        return false;
    rc_buf_init(output); /* an answer may bring the next request, and that its answer */
    rc_link_feed(link, rc_buf_head(&taken), rc_buf_len(&taken));
    rc_buf_deinit(&taken);
    return true;
}

void bed_close(struct bed *bed)
{
    rc_engine_close(&bed->engine);
    bed_run(bed);
    rc_engine_end(&bed->engine);
    bed_run(bed);
}

void bed_deinit(struct bed *bed)
{
    rc_engine_deinit(&bed->engine);
}
