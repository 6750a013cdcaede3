#include "driver/lookup.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/fork.h"
#include "redcache.h"

struct rc_lookup {
    /* Fixed after start. */
    char host[256];
    char port[8];
    unsigned generation; /* of the process that has the thread: rc_fork_generation */

    pthread_mutex_t mutex;
    /* Guarded by mutex. */
    void (*wake)(void *argument);
    void *argument;
    struct addrinfo *addresses;
    int error;
    bool done;
    bool abandoned;
};

static int resolve(const char *host, const char *port, int flags, struct addrinfo **addresses)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    *addresses = NULL;
    return getaddrinfo(host, port, &hints, addresses);
}

struct addrinfo *rc_lookup_digits(const char *host, uint16_t port)
{
    struct addrinfo *addresses;
    char text[8];
    snprintf(text, sizeof text, "%u", (unsigned)port);
    return resolve(host, text, AI_NUMERICHOST | AI_NUMERICSERV, &addresses) == 0 ? addresses : NULL;
}

static void free_lookup(struct rc_lookup *lookup)
{
    pthread_mutex_destroy(&lookup->mutex);
    if (lookup->addresses != NULL)
        freeaddrinfo(lookup->addresses);
    free(lookup);
}

static void *run(void *argument)
{
    struct rc_lookup *lookup = argument;
    struct addrinfo *addresses;
    int error = resolve(lookup->host, lookup->port, AI_NUMERICSERV, &addresses);
    /* RFC 6761: localhost is the loopback address, also where no file says so (a bare
       container). */
    if (error != 0 && strcmp(lookup->host, "localhost") == 0)
        error = resolve("127.0.0.1", lookup->port, AI_NUMERICHOST | AI_NUMERICSERV, &addresses);
    pthread_mutex_lock(&lookup->mutex);
    lookup->addresses = addresses;
    lookup->error = error;
    lookup->done = true;
    bool abandoned = lookup->abandoned;
    if (!abandoned)
        lookup->wake(lookup->argument);
    pthread_mutex_unlock(&lookup->mutex);
    if (abandoned)
        free_lookup(lookup);
    return NULL;
}

static int start_thread(struct rc_lookup *lookup)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0)
        return RC_ERR_NOMEM;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are the host's; a thread starts with its maker's mask */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, &attributes, run, lookup);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error == 0 ? 0 : RC_ERR_NOMEM;
}

int rc_lookup_start(struct rc_lookup **result, const char *host, uint16_t port,
                    void (*wake)(void *argument), void *argument)
{
    struct rc_lookup *lookup = calloc(1, sizeof *lookup);
    if (lookup == NULL)
        return RC_ERR_NOMEM;
    snprintf(lookup->host, sizeof lookup->host, "%s", host);
    snprintf(lookup->port, sizeof lookup->port, "%u", (unsigned)port);
    lookup->generation = rc_fork_generation();
    pthread_mutex_init(&lookup->mutex, NULL);
    lookup->wake = wake;
    lookup->argument = argument;
    if (start_thread(lookup) != 0) {
        free_lookup(lookup);
        return RC_ERR_NOMEM;
    }
    *result = lookup;
    return 0;
}

/* A child of fork() has a copy of the lookup and no thread that goes on with it. The mutex may be
   locked for ever, and addresses may be half told. */
static bool is_inherited(const struct rc_lookup *lookup)
{
    return lookup->generation != rc_fork_generation();
}

bool rc_lookup_is_done(struct rc_lookup *lookup)
{
    if (is_inherited(lookup))
        return true;
    pthread_mutex_lock(&lookup->mutex);
    bool done = lookup->done;
    pthread_mutex_unlock(&lookup->mutex);
    return done;
}

struct addrinfo *rc_lookup_take(struct rc_lookup *lookup, const char **why)
{
    if (is_inherited(lookup)) { /* what it holds stays where it is: nobody can say in which state */
        *why = "the lookup was begun before a fork";
        return NULL;
    }
    struct addrinfo *addresses = lookup->addresses;
    *why = lookup->error != 0 ? gai_strerror(lookup->error) : "the name has no address";
    lookup->addresses = NULL;
    free_lookup(lookup);
    return addresses;
}

void rc_lookup_abandon(struct rc_lookup *lookup)
{
    if (is_inherited(lookup))
        return;
    pthread_mutex_lock(&lookup->mutex);
    lookup->abandoned = true;
    bool done = lookup->done;
    pthread_mutex_unlock(&lookup->mutex);
    if (done)
        free_lookup(lookup);
}
