/*
 * node - one server: its address, the links to it, and what this process knows of it.
 *
 * What:    two links, W and T (link.h), and what links to it that are lent have in common
 *          (lend.h); whose near copies T has read (owner), up to when they are known coherent
 *          (horizon), which of them outlive a reconnect (revalidate); the deletes that the server
 *          may have lost (replay); whether it is asked at all (fuse); and how the server is
 *          (health). Two connections through one address may lead to two servers; then one of
 *          them is closed and made again, with backoff, until both lead to one.
 * Threads: the engine's owner.
 * Memory:  owns all of it but the near cache. Its links point back to it: it never moves.
 * Errors:  RC_ERR_NOMEM from init. Where the near cache has no place for its owner: no near copies
 *          and no error; it is asked again as long as somebody reads.
 * Not:     does not choose among servers (topology), does not know keys, ops or locks. Does not
 *          know which of two servers is the right one. A replica is not; else the older connection
 *          is taken for the wrong one, for an address leads to where it was opened last.
 */
#ifndef RC_NODE_H
#define RC_NODE_H

#include "base/address.h"
#include "engine/context.h"
#include "engine/fuse.h"
#include "engine/horizon.h"
#include "engine/link.h"
#include "engine/replay.h"
#include "engine/revalidate.h"
#include "engine/slot_map.h"
#include "near/near.h"

struct rc_server_node;

/* What the rest of the engine hears of a node. */
struct rc_node_news {
    void *owner;
    /* Redis tells of changes from now on. */
    void (*on_tracked)(void *owner, struct rc_server_node *node);
    /* It tells of none any more. */
    void (*on_untracked)(void *owner, struct rc_server_node *node);
    /* The link can be used; it was lost, or closed, or could not be made. */
    void (*on_ready)(void *owner, struct rc_link *link);
    void (*on_down)(void *owner, struct rc_link *link);
    /* A node of a cluster has answered: as rc_link's on_answer. */
    bool (*on_answer)(void *owner, struct rc_req *req, const struct rc_reply *reply);
    /* A message that nobody asked for has come over this link. */
    void (*on_push)(void *owner, struct rc_link *link, const struct rc_reply *push);
    /* The server does not answer commands, though its connection stands. */
    void (*on_silence)(void *owner, struct rc_server_node *node);
    /* As rc_link's. NULL: the address is known, and stays. */
    bool (*may_open)(void *owner, struct rc_link *link);
    int64_t (*unvouched_since)(void *owner, char why[RC_TEXT_SIZE]);
    /* Near copies of a cluster's node are being read. Said several times within maxStale. */
    void (*on_watch)(void *owner, struct rc_server_node *node);
    /* Whether what this node says of the key may be kept near: it is the key's owner. */
    bool (*may_keep)(void *owner, const struct rc_server_node *node, const char *key, size_t len);
};

/* What one node of a cluster says of who owns which slots: ownership.h. */
struct rc_voice {
    struct rc_req *req; /* the question under way, or NULL */
    int64_t heard_us;   /* when the last one was sent that it has answered as a member of a cluster
                           that works; 0: never */
    int64_t epoch;      /* the node's own, as it said last; -1: never */
    uint32_t round;     /* of the question */
    int64_t deaf_us;    /* since when it could not be asked, for want of a connection; 0: it can */
    uint64_t note;      /* stands for what it said then, for other processes; 0: nothing for them */
    struct rc_req *recheck; /* the question for the epoch alone, behind a majority's answers */
    int64_t claim_us;       /* up to when its answer can prove something */
    int64_t sure_us;        /* up to when it is proven that no slot was away and has come back */
    int64_t ready_us;       /* up to when it is vouched for, once the copies of slots that left are
                               gone */
};

/* The links that a node has from its beginning; by their roles, which come first. */
enum { RC_NODE_LINKS = RC_LINK_T + 1 };

/* Named with "server": redcache.h calls a piece of an answer rc_node. */
struct rc_server_node {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_address address;
    struct rc_node_news news;
    uint16_t number; /* among the topology's */

    /* Engine only. */
    struct rc_link links[RC_NODE_LINKS]; /* index: enum rc_link_role */
    struct rc_near *wanted; /* where copies are to be kept: the client's, outlives the engine. NULL:
                               nowhere */
    struct rc_near *near;   /* the same, once there is an owner; the next three are good then */
    struct rc_near_owner *owner;
    struct rc_horizon horizon;
    int64_t epoch_us; /* when the owner's epoch began: what was asked for before is not kept */
    struct rc_revalidate revalidate;
    const char *no_owner; /* why there is none, where one is wanted */
    int64_t seek_us;      /* when it is asked for again, and how much later the time after that */
    int64_t seek_pace_us;
    bool is_one_of_many; /* the owner has a name: there are other servers' in that near cache */
    bool is_warm;        /* rc_node_warm */
    struct rc_fuse fuse; /* its breaker */
    struct rc_replay replay;
    uint32_t slots;           /* that are its own, where there are several nodes: topology's */
    char id[RC_SLOT_ID_SIZE]; /* its name in a cluster; "": not known */
    bool has_lost_slots;      /* and what is noted of their keys still lies here */
    struct rc_timer again;    /* rc_node_replay, in this turn */
    bool is_in_cluster;
    bool is_lonely; /* it has last said that it sees no majority of the masters */
    struct rc_voice voice;
    struct rc_list replicas; /* servers that hold its data: replicas.h */
    /* What others say of the server, beside itself. */
    bool only_master; /* as a replica it is not the one that was meant */
    /* Up to when they say that it is the right one, and a cluster's masters that its slots are its
       own; INT64_MAX: nobody is asked. */
    int64_t vouched_us;
    int64_t reached_us;   /* up to when T says that it is coherent; 0: T is down */
    struct rc_req *check; /* asks W's server how it is, for rc_node_get_health; or NULL */
    /* While the links lead to two servers. */
    struct rc_link *suspect; /* the one that is made again; NULL: they agree, or one is closed */
    uint32_t tries;          /* how often, since it is the suspect */
};

static inline struct rc_link *rc_node_link(struct rc_server_node *node, uint32_t index)
{
    return &node->links[index];
}

/* The one that has what the request needs: a node alone knows its links by their roles. */
static inline struct rc_link *rc_node_link_for(struct rc_server_node *node,
                                               const struct rc_req *req)
{
    return &node->links[req->is_tracked ? RC_LINK_T : RC_LINK_W];
}

/* The one that commands go over, for those who only look at it. */
static inline const struct rc_link *rc_node_command_link(const struct rc_server_node *node)
{
    return &node->links[RC_LINK_W];
}

/* The same of what is tracked. */
static inline const struct rc_link *rc_node_tracked_link(const struct rc_server_node *node)
{
    return &node->links[RC_LINK_T];
}

/* Who reads there does not know how far it is behind its master. In a cluster others say who owns
   which slots. */
static inline bool rc_node_is_replica(const struct rc_server_node *node)
{
    return !node->is_in_cluster && node->links[RC_LINK_T].identity.role == RC_SERVER_REPLICA;
}

/* One of its own two; others to the same server are lent (lend.h). */
static inline bool rc_node_is_own(const struct rc_server_node *node, const struct rc_link *link)
{
    return link == &node->links[RC_LINK_W] || link == &node->links[RC_LINK_T];
}

/* Connects for commands, although no request waits for it. */
static inline void rc_node_want(struct rc_server_node *node)
{
    rc_link_want(&node->links[RC_LINK_W]);
}

/* near NULL: without near copies. */
int rc_node_init(struct rc_server_node *node, struct rc_context *context,
                 const struct rc_address *address, struct rc_near *near,
                 const struct rc_node_news *news);
void rc_node_deinit(struct rc_server_node *node); /* after the links' shutdown */
/* One number for one server, in every process of the machine. */
uint64_t rc_node_number(const struct rc_server_node *node);
/* It is one of many servers, and near copies of what it says are kept from now on, as soon as there
   is room for another owner. near NULL: they are not. */
void rc_node_keep(struct rc_server_node *node, struct rc_near *near);
/* Somebody reads what would be kept, and there is no owner: asks for one again, if it is time. */
void rc_node_seek_owner(struct rc_server_node *node);
/* Why there are no near copies though they are wanted: a static text. NULL: there are, or not. */
static inline const char *rc_node_no_owner(const struct rc_server_node *node)
{
    return node->wanted != NULL && node->near == NULL ? node->no_owner : NULL;
}

/* Readies a link to this node that may be lent: on_down and on_gone are the caller's to set. */
int rc_node_init_spare(struct rc_server_node *node, struct rc_link *link);

/* Its server may have lost deletes: they are done again as soon as it can be reached. */
void rc_node_replay(struct rc_server_node *node);

/* Its name in the cluster; "": not told. */
void rc_node_name(struct rc_server_node *node, const char id[RC_SLOT_ID_SIZE]);
/* It stands for another server from now on. Only where nobody uses it. */
void rc_node_reuse(struct rc_server_node *node, const struct rc_address *address);
/* The server is at another address now: its links are made again there. */
void rc_node_move(struct rc_server_node *node, const struct rc_address *address);
/* Others have said that this is the right server, or that its slots are its own, in answer to what
   was sent then. What waited for that is sent. */
void rc_node_vouch(struct rc_server_node *node, int64_t vouched_us);

/* Changes may have passed us by: nothing that was read up to now is known coherent. */
void rc_node_begin_epoch(struct rc_server_node *node);
/* Somebody reads near copies in this process: connects, before anything is asked for. */
void rc_node_warm(struct rc_server_node *node);
/* Others of this machine may take over the copies. False: there is nothing to hand over. */
bool rc_node_offer(struct rc_server_node *node);

/* Whether what is read now can be kept near: the connection is tracked, or will be. */
bool rc_node_can_keep(const struct rc_server_node *node);
/* Tells how the server is, and asks it where the last answer is old: the next call knows. */
void rc_node_get_health(struct rc_server_node *node, rc_health *health);

#endif
