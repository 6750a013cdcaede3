/*
 * registry - the clients of this process, and what a fork does to them.
 *
 * What:    the list in which rc_open finds a client that is open already, and its mutex. A child of
 *          fork() finds list, clients and near caches whole, and none of its parent's descriptors.
 * Threads: any. Everything but init, lock and rc_loop_count: with the mutex.
 * Memory:  the clients are client.c's: it takes one out before it frees it.
 * Errors:  none.
 * Not:     counts no references: client.c does, with the mutex.
 */
#ifndef RC_REGISTRY_H
#define RC_REGISTRY_H

struct rc_client;

void rc_registry_init(
    void); /* before the first use; once per process, however often it is called */
void rc_registry_lock(void);
void rc_registry_unlock(void);

void rc_registry_add(struct rc_client *client);
void rc_registry_remove(struct rc_client *client);
/* An open client of this process with the same name and options, or NULL. */
struct rc_client *rc_registry_find(const struct rc_client *wanted);
/* All of them by `next`, in no order; NULL: there is none. */
struct rc_client *rc_registry_first(void);

#endif
