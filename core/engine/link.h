/*
 * link - the protocol state of one connection: handshake, requests in order, answers in order,
 * pushes.
 *
 * What:    five kinds. W carries commands; T has client tracking on and carries what must be told
 *          of changes; X is lent to one caller after the other (lend.h); S leads to a sentinel
 *          (sentinel.h); R leads to a replica, and carries reads (replicas.h). A link is ready when
 *          its PING was answered with PONG: a server that loads its data answers everything before.
 *          Requests wait while it is not ready; what may be repeated is sent again on the next
 *          connection, but not over X.
 * Threads: the engine's owner.
 * Memory:  owns the output and the reader; requests belong to the context's pool.
 * Errors:  reported to each request's `done`: RC_ERR_TIMEOUT, RC_ERR_UNAVAILABLE, RC_ERR_UNKNOWN
 *          (sent, connection broken, not repeatable), RC_ERR_OVERLOAD, RC_ERR_TOOLARGE,
 *          RC_ERR_REDIS (login refused), RC_ERR_CLOSED.
 * Not:     no sockets. The driver opens when `wants_open`, feeds bytes, sends `output`, and closes
 *          when `wants_close`.
 */
#ifndef RC_LINK_H
#define RC_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"
#include "base/buf.h"
#include "base/list.h"
#include "engine/breaker.h"
#include "engine/bundle.h"
#include "engine/context.h"
#include "engine/identity.h"
#include "engine/ifeq.h"
#include "engine/resp.h"
#include "engine/server.h"

struct rc_near;
struct rc_server_node;
struct rc_line; /* the driver's */

enum rc_link_role { RC_LINK_W, RC_LINK_T, RC_LINK_X, RC_LINK_S, RC_LINK_R, RC_LINK_ROLES };

/* The steps of handshakes; each is one command and one answer. */
enum rc_link_step {
    RC_STEP_RESET, /* of one that was in use before */
    RC_STEP_HELLO,
    RC_STEP_SELECT,
    RC_STEP_TRACKING,
    RC_STEP_READONLY, /* a replica in a cluster shall answer reads, and not send them elsewhere */
    RC_STEP_INFO,     /* which server it is */
    RC_STEP_PING,
    RC_LINK_STEPS
};

enum rc_link_state {
    RC_LINK_IDLE,      /* nobody needed it yet */
    RC_LINK_OPENING,   /* the driver connects */
    RC_LINK_HANDSHAKE, /* HELLO ... PING are under way */
    RC_LINK_READY,
    RC_LINK_BACKOFF /* waits before the next attempt */
};

struct rc_link {
    /* Fixed after init. */
    struct rc_context *context;
    const struct rc_address *address;
    enum rc_link_role role;
    uint32_t number;      /* among all links of the engine: 0, 1, ... */
    struct rc_list place; /* in the topology's `all` */
    /* Of one that comes and goes: the driver has let go of it, and its memory may go, too. NULL: it
       stays as long as the topology. */
    void (*on_gone)(struct rc_link *link);
    /* The driver's own: what moves this link's bytes. The engine never looks at it. */
    struct rc_line *line;
    struct rc_server_node *node; /* the server at the other end; of S and R: its master */
    struct rc_breaker *breaker;  /* its node's; NULL: nobody judges the server by this link */
    /* News for the node. */
    void (*on_ready)(struct rc_link *link);
    void (*on_down)(struct rc_link *link);
    /* A connection was lost before it was ready, or none could be made. NULL: nobody minds. */
    void (*on_missed)(struct rc_link *link);
    void (*on_push)(struct rc_link *link, const struct rc_reply *push);
    /* It is about to connect. False: nobody knows where its server is, and it waits in backoff
       until rc_link_redial. NULL: it may. */
    bool (*may_open)(struct rc_link *link);
    /* Since when the word of others, that its server is the right one, is too old for what needs
       it; 0: it is not. `why` is told the cause, where it is not NULL. NULL: nobody is asked. */
    int64_t (*unvouched_since)(struct rc_link *link, char why[RC_TEXT_SIZE]);
    /* The handshake is done, but for being ready. NULL: it may be; else why it must not. */
    const char *(*on_greeted)(struct rc_link *link);
    /* A node of a cluster has answered. True: the request was not done, and has left this link. */
    bool (*on_answer)(struct rc_link *link, struct rc_req *req, const struct rc_reply *reply);
    /* A request was answered, and with it all news up to `sent_us` is in. Before its `done`. */
    void (*on_answered)(struct rc_link *link, int64_t sent_us);
    /* An answer takes long, and may: is the server still there? Said again and again. NULL: nobody
       wants to know. */
    void (*on_quiet)(struct rc_link *link);
    /* A request is about to be written, and deletes may be owed that go before it (owed.h).
       owed_end NULL: never. */
    void (*on_owed)(struct rc_link *link);
    const _Atomic uint64_t *owed_end; /* any process: moves when another delete is owed */
    struct rc_near *owes;             /* the near cache whose processes owe them */

    /* Engine only. */
    enum rc_link_state state;
    bool wants_open;         /* the driver shall connect; it clears this */
    bool wants_close;        /* the driver shall close the socket; it clears this */
    bool ended;              /* rc_link_shutdown: it stays closed */
    bool is_leaving;         /* rc_topology_remove: the driver lets go of it once it is closed */
    bool tracking;           /* the server agreed to CLIENT TRACKING */
    bool refused;            /* the server does not let us in: waiting does not help */
    bool turned_away;        /* it had no room for us the last time; perhaps the next time it has */
    bool is_lent;            /* its requests are for this connection: none goes over another one */
    bool is_cleaning;        /* rc_link_clean: it stands in a handshake of its own */
    bool is_silent;          /* it was given up because no answer came */
    bool is_read_only;       /* it answers reads and refuses writes; `cause` says why */
    bool is_doubted;         /* it has refused a write as a replica does: it is asked what it is */
    bool is_owing;           /* what is owed is being written */
    bool is_owed_refused;    /* the server did not take some of it: it is sent again */
    uint32_t owed_in_flight; /* requests of it */
    uint64_t owed_at;        /* up to here it was written to this connection */
    int64_t owed_again_us;   /* not again before */
    uint64_t login;    /* the credentials that the connection was told last; 0: the address's */
    uint64_t epoch;    /* grows with every connection that ended */
    uint32_t attempts; /* failed since it was last ready */
    int64_t down_since_us;
    int64_t ready_us;      /* when it was last made */
    int64_t received_us;   /* when an answer, or a piece of one, last came in */
    int64_t before_us;     /* the same, before what is read now */
    int64_t sent_us;       /* when the newest request was written to the output */
    int32_t connect_ms;    /* so long it may take to be ready; 0: as the options have it */
    struct rc_timer timer; /* opening: give up; backoff: try again; ready: is it still answering? */
    struct rc_resp resp;
    uint32_t answers;            /* of the first request in flight, already read */
    uint32_t handshake_at;       /* answers to its role's handshake, already read */
    struct rc_identity identity; /* of the server at the other end, or of the last one */
    int64_t confirmed_us;        /* it was still that one when this was sent */
    struct rc_buf output;
    uint64_t output_queued; /* bytes ever appended on this connection */
    uint64_t output_sent;   /* bytes the driver has written */
    struct rc_list queue;   /* requests not yet written to output */
    struct rc_list in_flight;
    uint32_t request_count;   /* in both */
    size_t held_bytes;        /* theirs; bounded, but one request may be larger */
    struct rc_server server;  /* what it is and can, or what the last one was */
    struct rc_ifeq ifeq;      /* which of its scripts that one does as commands */
    struct rc_bundle bundle;  /* publishes at the output's end that become one request */
    struct rc_req *bundler;   /* the first of those; the others stand behind it in in_flight */
    char cause[RC_TEXT_SIZE]; /* why it is not ready, or not tracking */
};

int rc_link_init(struct rc_link *link, struct rc_context *context, const struct rc_address *address,
                 enum rc_link_role role);
void rc_link_deinit(
    struct rc_link *link); /* every request must have been failed: rc_link_shutdown */

/* Takes the request; `done` is called later, never from inside this call. */
void rc_link_send(struct rc_link *link, struct rc_req *req, int64_t deadline_us);
/* The same for what must not be done at a server that is the wrong one by now, as leases and locks:
   it waits, within its deadline, until others vouch for the server. */
void rc_link_send_vouched(struct rc_link *link, struct rc_req *req, int64_t deadline_us);
/* The link's breaker is open: ends soon with RC_ERR_UNAVAILABLE and the breaker's word. What has
   patience is sent for its effect. */
void rc_link_refuse(struct rc_link *link, struct rc_req *req, int64_t deadline_us);
/* Others vouch for its server now: sends what waited for that. */
void rc_link_resume(struct rc_link *link);
/* Connects now, if it waits to try again: there is news that the server is back. */
void rc_link_hurry(struct rc_link *link);
/* Takes back what `earlier` may do: sent at once, or, where `earlier` is given up while its answer
   is still to come, behind that answer. A stopped server would else run the two the wrong way
   round. Where the connection of `earlier` was lost before its answer came: at once, and once more
   over the next connection of that link. May be done twice. What is to be taken back ends by itself
   after req->patience_ms. */
void rc_link_send_after(struct rc_link *link, struct rc_req *req, struct rc_req *earlier);
/* For requests that the server has not done, from inside of on_answer, or that are still queued.
   Both keep their deadline: into a list, until they are moved, and to another link, or the same. */
void rc_link_hold(struct rc_req *req, struct rc_list *list);
void rc_link_move(struct rc_req *req, struct rc_link *to);
/* Ends one that is held. */
void rc_link_fail(struct rc_req *req, int status);
/* The owner is no longer interested. What was sent stays sent; what has patience is still sent. */
void rc_link_forget(struct rc_req *req);
/* Fails every request and stays closed. */
void rc_link_shutdown(struct rc_link *link);
/* A PING, which the caller sends. NULL: no memory. */
struct rc_req *rc_link_ping(struct rc_link *link);
/* A PING, and who the server is: moves confirmed_us, or takes the link down. The caller sends it,
   and may want its `done`. NULL: no memory. */
struct rc_req *rc_link_question(struct rc_link *link);
/* Connects although no request waits for it. */
void rc_link_want(struct rc_link *link);
/* Its server is at another address now: connects there at once, if it is in use. What was not sent
   goes there; what was sent ends as on any lost connection. Not from inside a `done`. */
void rc_link_redial(struct rc_link *link, const char *cause);
/* Why it may not open, for those who wait. refused: waiting does not help, and they end. */
void rc_link_explain(struct rc_link *link, const char *cause, bool refused);
/* Its server has changed, as another connection or an answer tells: closes it, as rc_link_give_up.
   True: it stays, for a node of a cluster says in each role where its slots are. */
bool rc_link_hear_change(struct rc_link *link, const struct rc_identity *now, const char *change);
/* Drops the connection, which is of no use, and makes a new one. Not from inside a `done`. */
void rc_link_give_up(struct rc_link *link, const char *cause);

/* There are newer credentials: a connection that is ready is told, in line with its requests, which
   go on; one that waited for them, or was refused, is made at once. Not one that is lent: AUTH
   would stand among the answers of its caller's transaction. It is told when it comes back. */
void rc_link_authenticate(struct rc_link *link);
/* Has a connection that is ready, and waits for nothing, forget what its last user has done to it:
   it shakes hands again. RC_ERR_NOMEM: it is as it was, or down. */
int rc_link_clean(struct rc_link *link);
/* Closes the connection without a fault: the next request opens it again. Only where no request is
   queued or in flight. */
void rc_link_rest(struct rc_link *link);

/* The driver's side. */
void rc_link_opened(struct rc_link *link);
void rc_link_lost(struct rc_link *link, const char *cause); /* connect failed, EOF, error */
void rc_link_feed(struct rc_link *link, const char *bytes, size_t len);
void rc_link_sent(struct rc_link *link, size_t len);

/* Of its role: "W", "T", "X", "S" or "R". */
const char *rc_link_name(const struct rc_link *link);

/* Of this client's connections. 0 is none. */
static inline uint64_t rc_link_connection(const struct rc_link *link)
{
    return (uint64_t)(link->number + 1) << 32 | (uint32_t)link->epoch;
}

/* Waiting for it makes no sense: the server does not let us in. */
static inline bool rc_link_is_barred(const struct rc_link *link)
{
    return link->refused || link->turned_away;
}

/* So soon behind its request an answer is worth looking for again and again. */
enum { RC_LINK_SOON_US = 1000 };

/* An answer may come at any moment. A caller that has a link to itself may wait for long: later
   its answer is found when the link is readable. */
static inline bool rc_link_expects_input(const struct rc_link *link)
{
    if (rc_list_is_empty(&link->in_flight))
        return link->state == RC_LINK_HANDSHAKE;
    return !link->is_lent || link->context->now_us - link->sent_us < RC_LINK_SOON_US;
}

/* Its server keeps no data: it tells which one is the master. */
static inline bool rc_link_is_sentinels(const struct rc_link *link)
{
    return link->role == RC_LINK_S;
}

static inline bool rc_link_is_ready(const struct rc_link *link)
{
    return link->state == RC_LINK_READY;
}

/* The request of whose answers some, but not all, were read. NULL: none. */
static inline struct rc_req *rc_link_half_answered(const struct rc_link *link)
{
    if (link->answers == 0 || !rc_link_is_ready(link))
        return NULL;
    return RC_CONTAINER(link->in_flight.next, struct rc_req, place);
}

#endif
