/*
 * peer - an in-memory Redis and clients of it, in one thread, under a clock the test moves.
 *
 * What:    answers the commands and scripts the engine sends (scripts by their SHA: it does what
 *          they say, it does not run Lua), pushes invalidations to connections that track, and
 *          misbehaves when told to. A client is an engine whose links are moved by peer_run.
 * Threads: one.
 * Memory:  a server owns its keys and connections, a client its engine, the test its ops.
 * Errors:  a test program without memory is at its end: abort.
 * Not:     no Redis: only what the engine uses, one database, and a key expires when somebody
 *          looks.
 */
#ifndef RC_PEER_H
#define RC_PEER_H

#include "engine/engine.h"
#include "engine/script.h"

enum { PEER_CLIENTS = 3, PEER_LINKS = 10, PEER_CONNS = PEER_CLIENTS * PEER_LINKS, PEER_KEYS = 128 };

struct peer_key {
    struct rc_buf name;
    struct rc_buf value;
    bool exists;
    int64_t expires_us; /* 0: never */
    unsigned trackers;  /* bit per connection */
};

struct peer_conn {
    struct rc_link *link;
    bool is_open;
    unsigned run; /* server->run when it was opened */
    bool tracks;
    bool mute;            /* reads nothing, like a stopped process */
    bool deaf;            /* does what it is told, but its answers do not arrive */
    bool clogged;         /* the engine's output stays where it is, like behind a full socket */
    struct rc_buf input;  /* sent by the engine, not yet executed */
    struct rc_buf output; /* answers and pushes on their way */
    struct rc_buf later;  /* pushes about an own write go behind its answer */
};

struct peer_client {
    struct rc_engine engine;
    struct peer_server *server;
    struct peer_conn *conns[PEER_LINKS]; /* by role; then those that come and go */
};

struct peer_server {
    int64_t now_us;
    struct peer_key keys[PEER_KEYS];
    int key_count;
    bool known[RC_SCRIPT_COUNT];
    struct peer_conn conns[PEER_CONNS];
    struct peer_client *clients[PEER_CLIENTS];
    int client_count;

    /* Misbehaviour. */
    bool refuses;        /* nobody can connect */
    bool silent;         /* a connect neither succeeds nor fails */
    bool loading;        /* HELLO is answered, nothing behind it */
    bool no_tracking;    /* CLIENT TRACKING is not allowed */
    bool no_info;        /* INFO is not allowed */
    bool no_reset;       /* nor is RESET */
    const char *refusal; /* what HELLO is answered */
    const char *login;   /* the only password that HELLO and AUTH take; NULL: any, and none */
    const char *ping;    /* what PING is answered */
    const char *error;   /* the next `errors` commands get this answer */
    int errors;
    size_t chunk; /* answers arrive in pieces of so many bytes; 0: whole */

    /* What it says of itself. `run` is asked for when a connection is opened: another number is
       another server behind the same address (with the same keys). */
    unsigned run, history, earlier; /* an id each; earlier 0: none */
    bool is_replica;
    bool is_valkey; /* 9.1.0, says HELLO; else Redis 7.0.15 */
    bool compares;  /* it does SET with IFEQ, and DELIFEQ */

    /* What it saw. */
    unsigned commands; /* without handshakes */
    unsigned scripts[RC_SCRIPT_COUNT];
    unsigned gets, sets, unlinks, hellos, ranges, resets;
    unsigned comparisons; /* commands that compare, known to it or not */
    unsigned auths;       /* commands of that name */
    char user[32];        /* that was named last, by HELLO or AUTH */
    unsigned questions;   /* which server it is */
    bool went_round;      /* peer_run gave up: somebody turns in a circle */
};

/* An op and how often it was finished; `op` comes first. */
struct peer_op {
    struct rc_op op;
    int finished;
};

void peer_init(struct peer_server *server);
void peer_deinit(struct peer_server *server); /* after its clients */
/* NULL options: a command timeout of 500 ms and so on. peer_options gives them for a start. */
rc_options peer_options(void);
void peer_open(struct peer_client *client, struct peer_server *server, const rc_options *options);
/* With a near cache, whose clock is the real one: set server->now_us to rc_near_now_us() before. */
void peer_open_near(struct peer_client *client, struct peer_server *server,
                    const rc_options *options, struct rc_near *near);
void peer_close(struct peer_client *client);
void peer_use(struct peer_client *client, const char *url); /* before the first op */

void peer_run(struct peer_server *server);               /* until nothing moves; no time passes */
void peer_sleep(struct peer_server *server, int64_t ms); /* each timer fires at its time */
void peer_cut(struct peer_conn *conn, bool executes); /* what was sent is still executed, or not */
void peer_say(struct peer_conn *conn, const char *bytes, size_t len); /* whatever it is */

/* As a foreign client. */
void peer_put(struct peer_server *server, const char *key, const char *bytes, size_t len,
              int64_t ttl_ms); /* -1: no expiry */
void peer_unlink(struct peer_server *server, const char *key);
void peer_pexpire(struct peer_server *server, const char *key, int64_t ttl_ms);
struct peer_key *peer_find(struct peer_server *server, const char *key); /* NULL: absent */
int64_t peer_pttl(struct peer_server *server, const char *key);
bool peer_has_lease(struct peer_server *server, const char *key);

/* Ops, submitted at once. They run when peer_run is called. */
void peer_op_init(struct peer_op *op);
void peer_op_deinit(struct peer_op *op);
/* Of a server with one client: closes that, and deinits all. False: somebody went round. */
bool peer_take_down(struct peer_client *client, struct peer_op *ops, int count);
void peer_get(struct peer_client *client, struct peer_op *op, const char *key, uint32_t flags);
void peer_read(struct peer_client *client, struct peer_op *op, const char *key,
               uint32_t flags); /* kept near */
/* The same of a view with a ttl of its own. */
void peer_read_for(struct peer_client *client, struct peer_op *op, const char *key, uint32_t flags,
                   int64_t near_ttl_us);
void peer_barrier(struct peer_client *client, struct peer_op *op);
void peer_set(struct peer_client *client, struct peer_op *op, const char *key, const char *value,
              int64_t ttl_ms);
void peer_delete(struct peer_client *client, struct peer_op *op, const char *key);
void peer_load(struct peer_client *client, struct peer_op *op, const char *key, uint32_t flags,
               int32_t lease_ttl_ms, int32_t max_load_ms, int32_t wait_ms);
void peer_publish(struct peer_client *client, struct peer_op *op, const char *value, int64_t ttl_ms,
                  uint32_t stale_ms);
void peer_fail(struct peer_client *client, struct peer_op *op, const char *text,
               int32_t error_ttl_ms);
void peer_release(struct peer_client *client, struct peer_op *op);
void peer_acquire(struct peer_client *client, struct peer_op *op, struct rc_lock *lock,
                  uint32_t flags, int32_t ttl_ms, int32_t wait_ms, int32_t max_hold_ms);
void peer_unlock(struct peer_client *client, struct peer_op *op, struct rc_lock *lock);
void peer_extend(struct peer_client *client, struct peer_op *op, struct rc_lock *lock,
                 int32_t ttl_ms);

void peer_borrow(struct peer_client *client, struct peer_op *op, struct rc_lent *lent);
/* One command of one argument over what was lent: "BLPOP" is answered when the test says so. */
void peer_call(struct peer_client *client, struct peer_op *op, struct rc_lent *lent,
               const char *name);

bool peer_ended(const struct peer_op *op, int status, int outcome); /* once, and so */
bool peer_says(const struct peer_op *op, const char *data);
bool peer_holds(const struct peer_server *server, struct rc_lock *lock); /* and may trust it */

#endif
