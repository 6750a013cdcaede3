/*
 * cluster - how this client follows the slots of a cluster.
 *
 * What:    learns the slot map by CLUSTER SLOTS from any node that a majority of masters keeps
 *          alive, and gives it to the topology; follows MOVED, ASK and what says "not now" for
 *          requests of which no command was run. One refresh at a time, and no two within
 *          REFRESH_GAP_MS, however many requests are sent elsewhere: a MOVED corrects its own slot
 *          at once. A map that is older than the last one, by the cluster's epoch, is not taken, as
 *          long as some node may have a newer one. Where the url lists nodes (roster), they are
 *          asked, too, once none that is known answers with a good map.
 * Threads: the engine's owner.
 * Memory:  owns the map, once there is a cluster.
 * Errors:  none of its own: a request that cannot be followed ends with what the server has said,
 *          or with its deadline.
 * Not:     does not send again what may have been done. Sorts no batch of which a part was run:
 *          call does. Knows no keys.
 * Source:  the Redis Cluster specification, "Redirection and resharding", "Configuration epoch".
 */
#ifndef RC_CLUSTER_H
#define RC_CLUSTER_H

#include "engine/context.h"
#include "engine/redirect.h"
#include "engine/replicas.h"
#include "engine/roster.h"
#include "engine/slot_map.h"
#include "engine/topology.h"

struct rc_cluster {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_replicas *replicas;
    void (*on_taken)(void *owner); /* a map has been taken: slots may have other owners */
    void *owner;

    /* Engine only. */
    struct rc_roster roster;
    bool is_on; /* a node has said that it is one of a cluster */
    bool is_wanted;
    bool is_doubted;            /* the last answer was no good map: another node may have one */
    struct rc_slot_map *map;    /* the newest answer; NULL: there is no cluster */
    char asked[256];            /* the host that the map which was taken last has come from */
    bool tells_replicas;        /* the map's replicas are wanted */
    int64_t epoch;              /* of the cluster, when that was */
    int64_t older_us;           /* since when only older ones were told of; 0: they were not */
    char refusal[RC_TEXT_SIZE]; /* why a node told no map, the last time; "": it did */
    struct rc_req *req;         /* the question under way, or NULL */
    int64_t asked_us;           /* when the last one was sent, */
    uint16_t asked_number;      /* and to which node */
    int32_t confirms;           /* the next one goes to another master than that; -1: to any */
    struct rc_timer refresh;    /* the next one */
    struct rc_list waiting;     /* requests that a server could not do yet, by `place` */
    struct rc_timer try_again;  /* for those, */
    int64_t pause_ms;           /* in so long */
    int64_t tried_us;           /* the last time */
    uint64_t turns;             /* of the nodes, for those without a slot */
};

int rc_cluster_init(struct rc_cluster *cluster, struct rc_context *context,
                    struct rc_topology *topology, struct rc_replicas *replicas,
                    void (*on_taken)(void *owner), void *owner);
void rc_cluster_deinit(struct rc_cluster *cluster); /* after rc_cluster_shutdown */
/* Fails what waits. Before the links' shutdown. */
void rc_cluster_shutdown(struct rc_cluster *cluster);

/* Asks for the map again, now or when it is time. */
void rc_cluster_want(struct rc_cluster *cluster);
/* The same for who goes by the word of the master of that number, which may be cut off: asks the
   others, one after the other. Nothing where there is no cluster, or where the last question is not
   as old as that. */
void rc_cluster_confirm(struct rc_cluster *cluster, uint16_t number, int64_t age_ms);
/* The map's replicas are told from now on. Asks for the map again where what it says of them
   is_wrong, or it is some seconds old: one that comes back is found. */
void rc_cluster_want_replicas(struct rc_cluster *cluster, bool is_wrong);
/* A link has shaken hands; it was lost, or could not be made. */
void rc_cluster_on_ready(struct rc_cluster *cluster, struct rc_link *link);
void rc_cluster_on_down(struct rc_cluster *cluster, struct rc_link *link);
/* Where an error of the link's server sends a command: to that node, or (RC_REDIRECT_WAIT) there
   again in a moment. False: nowhere. A MOVED is believed at once. */
struct rc_cluster_way {
    enum rc_redirect_kind kind;
    uint16_t number; /* of the node */
    int32_t slot;
};
bool rc_cluster_resolve(struct rc_cluster *cluster, const struct rc_link *link, const rc_node *said,
                        struct rc_cluster_way *way);
/* The link's server has not done the request: true where it goes elsewhere, or there again. */
bool rc_cluster_follow(struct rc_cluster *cluster, struct rc_req *req,
                       const struct rc_reply *reply);
/* Makes what one node has told of itself the health of all. */
void rc_cluster_get_health(const struct rc_cluster *cluster, rc_health *health);

#endif
