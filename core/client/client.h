/*
 * client - what the public calls share: a client and its driver.
 *
 * What:    client.c opens and closes clients and finds the driver of this process; registry.c knows
 *          those that are open, stores.c their stores in memory, options.c what they may be opened
 *          with, figures.c how they do; operation.c, view.c and lock_handle.c are the calls on
 *          slots, views of the near cache and locks, lent_handle.c those on lent connections, which
 *          redcache.h declares; login.c tells who we are.
 * Threads: any; everything here runs in the caller's thread, and what needs the engine goes through
 *          the driver's queue.
 * Memory:  a client lives as long as it is referred to, or has slots, locks or views.
 * Errors:  RC_ERR_*.
 * Not:     moves no bytes, and does not know the protocols: driver and engine do.
 */
#ifndef RC_CLIENT_H
#define RC_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/address.h"
#include "base/buf.h"
#include "driver/driver.h"
#include "driver/fork.h"
#include "near/near.h"
#include "redcache.h"

/* The newest credentials that were given: those of each driver that is started. */
struct rc_client_login {
    struct rc_buf text; /* user and password */
    size_t user_len;
    int64_t expires_us;
    uint64_t version; /* 0: none were given */
};

struct rc_client {
    /* Fixed after init. */
    rc_options options; /* strings: `name` */
    struct rc_buf name; /* url, group, tls_*, the logins, zone, near_name */
    struct rc_address address;
    struct rc_tls_context *tls_context; /* rediss:// only */
    struct rc_near *near;               /* NULL: none */
    unsigned home;                      /* the fork generation in which it was opened */

    /* Guarded by registry_mutex. */
    struct rc_memory *memory; /* of memory:// addresses until the client is closed, else NULL */
    struct rc_client *next;
    unsigned references;
    bool leaving;   /* the last reference is on its way out: not to be opened again */
    unsigned users; /* seats, locks and views: the memory stays as long as there are any */
    unsigned loops; /* that are open in the process of the fork generation loops_generation */
    unsigned loops_generation;

    /* Guarded by driver_mutex; read anywhere (acquire). */
    pthread_mutex_t driver_mutex;
    struct rc_client_login login;
    _Atomic(struct rc_driver *) driver; /* NULL before the first use */
    _Atomic bool closed;
    struct rc_driver *abandoned; /* of the parent process, never touched again */
};

struct rc_view {
    /* Fixed after init. */
    struct rc_client *client;
    struct rc_near *near;
    struct rc_buf prefix;
    int64_t ttl_us;
    uint8_t group;
    bool own_process_only; /* its near cache knows nothing of the store of a child of fork() */

    /* The reader's thread's. */
    bool is_judging;
    bool is_avoiding;
    struct rc_tags *tags; /* may be NULL */
    struct {
        int32_t left;   /* hits, or what may be one, until the next of which the sketch is told */
        uint32_t place; /* of that among `every` in turn */
        uint32_t every; /* RC_HOT_SAMPLE, or RC_HOT_SELDOM while nobody asks */
        uint64_t random;
    } sample;
    struct rc_near_prefix lookups; /* prefix, as they want it */
};

struct rc_tags {
    unsigned holders; /* the caller, and views; they are all of one thread */

    /* Fixed after init. */
    struct rc_client *client;
    bool own_process_only; /* as of a view */
    struct rc_near_tags *near;
};

/* Fills in the defaults. false: one of the others is refused. */
bool rc_options_complete(rc_options *options, rc_refusal *refusal);
/* false: one does not go together with such an address. */
bool rc_options_check_memory(const rc_options *options, const struct rc_address *address,
                             rc_refusal *refusal);
bool rc_options_check_tls(const rc_options *options, const struct rc_address *address,
                          rc_refusal *refusal);
/* false: option auth does not fit the address. */
bool rc_options_check_auth(const rc_options *options, const struct rc_address *address,
                           rc_refusal *refusal);
/* Nobody on the way reads what goes to the server; or the user has said that it does not matter. */
bool rc_options_is_private(const rc_options *options, const struct rc_address *address);
/* Puts user and password into the address. false: they do not fit, or the url has some, too. */
bool rc_options_take_login(const rc_options *options, struct rc_address *address,
                           rc_refusal *refusal);
/* Takes over who we are to the sentinels of the address. false: that is refused. */
bool rc_options_log_in(const rc_options *options, struct rc_address *address, rc_refusal *refusal);
/* Writes down what is wrong with an option (static text). false: `why` is NULL, nothing is. */
bool rc_refuse(rc_refusal *refusal, int32_t option, const char *why);

/* The driver of this process. NULL: there is none yet. */
static inline struct rc_driver *rc_client_running_driver(const struct rc_client *client)
{
    /* Acquire pairs with the release in rc_client_start_driver. */
    struct rc_driver *driver = atomic_load_explicit(&client->driver, memory_order_acquire);
    return driver != NULL && driver->fork_generation == rc_fork_generation() ? driver : NULL;
}

struct rc_driver *rc_client_start_driver(struct rc_client *client, int *error);

/* The same, started now if need be. NULL: closed, or it cannot be started (`error`). */
static inline struct rc_driver *rc_client_driver(struct rc_client *client, int *error)
{
    struct rc_driver *driver = rc_client_running_driver(client);
    return driver != NULL && !atomic_load(&client->closed) ? driver
                                                           : rc_client_start_driver(client, error);
}

/* With the driver's mutex: says who we are. */
void rc_client_tell_login(struct rc_client *client, struct rc_driver *driver);

/* The time it goes by. */
int64_t rc_client_now_us(const struct rc_client *client);
/* It was opened by a parent of this process, whose store in memory is another one. */
static inline bool rc_client_is_inherited(const struct rc_client *client)
{
    return client->home != rc_fork_generation();
}
/* Counts a seat or lock; with the last user of a client nobody refers to any more its memory
   goes. */
void rc_client_count_user(struct rc_client *client, int change);

/* The last reference is about to go: an open from now on makes another client. False:
   others go on with it. */
bool rc_client_leave(struct rc_client *client);

/* Counts a loop that is opened or closed. */
void rc_client_count_loop(struct rc_client *client, int change);

/* The slot is free for a new operation of this kind, or RC_ERR_ARGUMENT. */
int rc_operation_ready(rc_op *op, enum rc_op_kind kind);
int rc_operation_submit(rc_op *op);

/* The slot has no name any more. */
void rc_loop_leave(struct rc_seat *seat);

#endif
