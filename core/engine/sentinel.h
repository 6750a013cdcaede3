/*
 * sentinel - which server is the master, as the majority of its sentinels says.
 *
 * What:    a link of role S to each sentinel of the url, opened when a server is needed. While it
 *          is needed all of them are asked for the master's address four times in the time that
 *          near readers allow, and at once where one of them tells of a switch. The master is where
 *          more than half of all sentinels of the url say that it is; when that is another address
 *          the node moves there, and takes no server that calls itself a replica. For some seconds
 *          after a planned failover the old master answers as before: so near copies are known
 *          coherent only up to the time for which a majority has named their server. One sentinel
 *          that turns to another server knows more than the others: from then on no word counts
 *          for the old one, for a while. Leases and locks need a word no older than that, too. New
 *          connections need a word of the last second; for all else those that stand go on without
 *          any.
 * Threads: the engine's owner.
 * Memory:  owns the links to the sentinels.
 * Errors:  RC_ERR_NOMEM from init. Why there is no master: to those who wait for it, as the cause
 *          of the node's links, and in health.
 * Not:     does not elect, and does not look at replicas: scout asks for them. Does not know
 *          servers that the sentinels have not named, nor sentinels that the url does not name.
 */
#ifndef RC_SENTINEL_H
#define RC_SENTINEL_H

#include "engine/context.h"
#include "engine/lend.h"
#include "engine/replicas.h"
#include "engine/topology.h"

struct rc_voter; /* one sentinel */

struct rc_sentinel {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_lends *lends;
    struct rc_replicas *replicas;
    struct rc_voter *voters;
    uint32_t count; /* 0: the url names a server */

    /* Engine only. */
    struct rc_timer timer;
    bool is_known;        /* a majority has named a master; it is the node's address */
    int64_t asked_us;     /* when they were last asked, all of them */
    int64_t unvouched_us; /* since when the word is too old for leases and locks; 0: it is not */
};

int rc_sentinel_init(struct rc_sentinel *sentinel, struct rc_context *context,
                     struct rc_topology *topology, struct rc_lends *lends,
                     struct rc_replicas *replicas);
void rc_sentinel_deinit(struct rc_sentinel *sentinel); /* after the links' shutdown */
/* The client is closed: nobody is asked any longer. */
void rc_sentinel_shutdown(struct rc_sentinel *sentinel);

/* A link to the master is about to connect: whether it is known where that is. */
bool rc_sentinel_may_open(struct rc_sentinel *sentinel);
/* rc_link's unvouched_since, of the node's links. */
int64_t rc_sentinel_unvouched_since(struct rc_sentinel *sentinel, char why[RC_TEXT_SIZE]);
/* A link to one that names the master, and has been heard of lately. NULL: there is none. */
struct rc_link *rc_sentinel_find_witness(const struct rc_sentinel *sentinel);
/* Adds to what the node says of itself what the sentinels say of it. */
void rc_sentinel_get_health(const struct rc_sentinel *sentinel, rc_health *health);

#endif
