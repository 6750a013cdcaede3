#include "near/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/name.h"
#include "near/process.h"

#define MAGIC UINT64_C(0x7261656e65686372) /* "rchenear" */

#define TIME_SPACE "/proc/self/ns/time"
#define PID_SPACE  "/proc/self/ns/pid"

enum { LAYOUT = 10, LINE = 64, MAX_NAME = 200, CREATION_TRIES = 1000 };

static size_t align(size_t bytes)
{
    return (bytes + LINE - 1) & ~(size_t)(LINE - 1);
}

static uint32_t power_below(size_t number, uint32_t min, uint32_t max)
{
    uint32_t power = min;
    while (power < max && (size_t)power * 2 <= number)
        power *= 2;
    return power;
}

/* Small regions have fewer slots and counts: 64 KiB have to do for tests. */
static bool plan(struct rc_region *region, size_t bytes, uint32_t stripe_count)
{
    uint32_t writes = power_below(bytes / 1024, 64, 65536);
    uint32_t owners = power_below(bytes / 4096, 16, RC_NEAR_OWNERS);
    uint32_t avoided = power_below(bytes / 4096, 64, 16384); /* 0.2 % */
    uint32_t notes = power_below(bytes / 2048, 64, 32768);   /* 0.4 % of the bytes */
    size_t write_versions_at = align(sizeof(struct rc_region_head));
    size_t owners_at = align(write_versions_at + writes * sizeof(uint32_t));
    size_t ring_at = owners_at + owners * sizeof(struct rc_near_owner);
    size_t sketch_at = ring_at + rc_ring_bytes(bytes);
    size_t journal_at = sketch_at + rc_sketch_bytes(bytes);
    size_t avoid_at = journal_at + notes * sizeof(uint64_t);
    size_t backlog_at = align(avoid_at + avoided * sizeof(uint64_t));
    size_t stripes_at = backlog_at + rc_backlog_bytes(bytes);
    if (bytes < RC_NEAR_MIN_BYTES || stripe_count == 0 || stripe_count > RC_REGION_STRIPES ||
        (stripe_count & (stripe_count - 1)) != 0 ||
        !rc_stripe_plan(&region->shape, (bytes - stripes_at) / stripe_count))
        return false;
    region->bytes = bytes;
    region->head = (struct rc_region_head *)(void *)region->base;
    region->write_versions = (_Atomic uint32_t *)(void *)(region->base + write_versions_at);
    region->write_versions_mask = writes - 1;
    region->owners = (struct rc_near_owner *)(void *)(region->base + owners_at);
    region->owner_count = owners;
    rc_ring_view(&region->ring, bytes, region->base + ring_at, &region->shape.seed);
    rc_sketch_view(&region->sketch, bytes, region->base + sketch_at);
    region->shape.journal.places = (_Atomic uint64_t *)(void *)(region->base + journal_at);
    region->shape.journal.mask = notes - 1;
    region->avoid.places = (_Atomic uint64_t *)(void *)(region->base + avoid_at);
    region->avoid.mask = avoided - 1;
    rc_backlog_view(&region->backlog, bytes, region->base + backlog_at);
    region->stripe_count = stripe_count;
    region->shape.shift = (uint32_t)__builtin_ctz(stripe_count);
    for (uint32_t i = 0; i < stripe_count; i++)
        rc_stripe_view(&region->stripes[i], &region->shape, &region->head->bounds,
                       region->base + stripes_at + (size_t)i * region->shape.bytes);
    return true;
}

static uint32_t type_sizes(void)
{
    return (uint32_t)(sizeof(pthread_mutex_t) | sizeof(struct rc_stripe_head) << 8);
}

/* What the head says of the region for ever: a byte that changed there is noticed before anybody
   goes by it. */
static uint64_t sum_of(const struct rc_region_head *head)
{
    const struct rc_mix_seed seed = {{MAGIC, 1, 2, 3}}; /* the same in every process */
    const size_t user_at = offsetof(struct rc_region_head, user);
    return rc_mix(&seed, (const char *)head, offsetof(struct rc_region_head, is_ready)) ^
           rc_mix(&seed, (const char *)head + user_at,
                  offsetof(struct rc_region_head, sum) - user_at);
}

/* The number of a namespace of this process; 0: not known. */
static uint64_t space_of(const char *link)
{
    struct stat status;
    return stat(link, &status) == 0 ? (uint64_t)status.st_ino : 0;
}

static bool is_same_space(uint64_t a, uint64_t b)
{
    return a == b || a == 0 || b == 0;
}

/* On zeroed memory. A process that dies in here leaves is_ready 0. */
static int make(struct rc_region *region, const struct rc_near_options *options, const char **why)
{
    struct rc_region_head *head = region->head;
    if (options->seed != NULL) {
        head->seed = *options->seed;
    } else if (getentropy(&head->seed, sizeof(head->seed)) != 0) {
        *why = "there are no random numbers for the near cache";
        return RC_ERR_NOMEM;
    }
    head->magic = MAGIC;
    head->layout = LAYOUT;
    head->sizes = type_sizes();
    head->bytes = region->bytes;
    head->server = options->server;
    head->user = options->user;
    head->time_space = options->clock == NULL ? space_of(TIME_SPACE) : 0;
    head->pid_space = options->name == NULL ? space_of(PID_SPACE) : 0;
    head->stripe_count = region->stripe_count;
    head->birth_us = options->clock != NULL
                         ? atomic_load_explicit(options->clock, memory_order_acquire)
                         : rc_clock_us();
    head->sum = sum_of(head);
    atomic_store_explicit(&head->bounds.count, 1, memory_order_relaxed);
    int error = rc_stripe_init_mutex(&head->mutex);
    for (uint32_t i = 0; error == 0 && i < region->stripe_count; i++)
        error = rc_stripe_init(&region->stripes[i]);
    if (error != 0) {
        *why = "there are no mutexes that processes can share";
        return error;
    }
    /* Release: with the acquire in `check`. */
    atomic_store_explicit(&head->is_ready, 1, memory_order_release);
    return 0;
}

/* What the entries' readers and writers need of the header, out of others' reach. */
static void copy_head(struct rc_region *region)
{
    region->shape.seed = region->head->seed;
    region->shape.birth_us = region->head->birth_us;
    region->shape.journal.birth_us = region->head->birth_us;
    region->avoid.birth_us = region->head->birth_us;
}

/* ---- anonymous ------------------------------------------------------------------------------- */

static int map(struct rc_region *region, size_t bytes, int flags, int fd, const char **why)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
    if (base == MAP_FAILED) {
        *why = "there is no memory for a near cache of that size";
        return RC_ERR_NOMEM;
    }
    region->base = base;
    region->bytes = bytes;
    return 0;
}

static int open_anonymous(struct rc_region *region, const struct rc_near_options *options,
                          uint32_t stripe_count, const char **why)
{
    int error = map(region, options->bytes, MAP_ANONYMOUS, -1, why);
    if (error != 0)
        return error;
    if (!plan(region, options->bytes, stripe_count)) {
        *why = "the near cache is too small for that many stripes, or too large for so few";
        error = RC_ERR_ARGUMENT;
    }
    if (error == 0)
        error = make(region, options, why);
    if (error != 0)
        rc_region_close(region);
    return error;
}

/* ---- named ----------------------------------------------------------------------------------- */

static bool write_path(char path[MAX_NAME + 16], const char *name, size_t len)
{
    if (len == 0 || len > MAX_NAME || !rc_is_name(name, len))
        return false;
    snprintf(path, MAX_NAME + 16, "/redcache-%.*s", (int)len, name);
    return true;
}

static bool is_ours(const struct stat *status)
{
    return status->st_uid == geteuid() && (status->st_mode & 077) == 0;
}

/* A region whose maker died over it. It is not made good: had only the word been damaged that says
   so, others would lose the memory that they use (SIGBUS). */
static bool is_half_made(int fd, const struct stat *status)
{
    struct {
        uint64_t magic;
        char others[offsetof(struct rc_region_head, is_ready) - sizeof(uint64_t)];
        uint32_t is_ready;
    } head = {0};
    return status->st_size != 0 && is_ours(status) && pread(fd, &head, sizeof(head), 0) >= 0 &&
           (head.magic == 0 || head.magic == MAGIC) && head.is_ready != 1;
}

/* Opens the file and takes its lock, which goes with the process that holds it: a process that has
   it and finds the file empty may make the region. Nobody holds it longer than that takes. */
static int open_locked(const char *path, struct stat *status, const char **why)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    *why = "the shared near cache of that name is being made, and does not get ready";
    for (int tries = 0; tries < CREATION_TRIES; tries++) {
        int fd = shm_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) {
            *why = errno == EACCES ? "the shared near cache of that name belongs to another user"
                                   : "the shared near cache of that name could not be opened";
            return -1;
        }
        bool is_locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
        /* Without a link the name was taken away, and perhaps given to another one. */
        if (is_locked && fstat(fd, status) == 0 && status->st_nlink != 0) {
            if (!is_half_made(fd, status) || shm_unlink(path) != 0)
                return fd;
        }
        close(fd); /* and the lock with it */
        if (!is_locked)
            nanosleep(&pause, NULL);
    }
    return -1;
}

static int grow(int fd, size_t bytes, const char **why)
{
    int error;
    do { /* gets the memory now: later, its lack would be a SIGBUS */
        error = posix_fallocate(fd, 0, (off_t)bytes);
    } while (error == EINTR);
    if (error == 0)
        return 0;
    *why = "there is no room in /dev/shm for a near cache of that size";
    return RC_ERR_NOMEM;
}

static int check(const struct rc_region_head *head, const struct rc_near_options *options,
                 size_t file_bytes, const char **why)
{
    if (head->magic != MAGIC || head->layout != LAYOUT || head->sizes != type_sizes())
        *why = "the shared near cache of that name was made by another version";
    else if (head->bytes != options->bytes || file_bytes != options->bytes)
        *why = "the shared near cache of that name was made with another size";
    else if (head->sum != sum_of(head))
        *why = "the shared near cache of that name is damaged: remove its file in /dev/shm";
    else if (head->server != options->server)
        *why = "the shared near cache of that name belongs to another server or "
               "database: give each near cache a name of its own";
    else if (head->user != options->user)
        *why = "the shared near cache of that name belongs to another user of Redis, who may read "
               "other keys: give each user's near cache a name of its own";
    else if (!is_same_space(head->time_space, space_of(TIME_SPACE)))
        *why = "the shared near cache of that name was made where the monotonic clock is another "
               "one: a time namespace needs a near cache of its own";
    else
        return 0;
    return RC_ERR_ARGUMENT;
}

/* Under the file's lock. */
static int join(struct rc_region *region, const struct rc_near_options *options,
                uint32_t stripe_count, int fd, const struct stat *status, const char *path,
                const char **why)
{
    size_t bytes = (size_t)status->st_size;
    bool is_new = bytes == 0;
    int error = 0;
    if (!is_ours(status)) {
        *why = "the shared near cache of that name belongs to another user, or others may open it";
        return RC_ERR_ARGUMENT;
    }
    if (is_new)
        error = grow(fd, bytes = options->bytes, why);
    if (error == 0)
        error = map(region, bytes, 0, fd, why);
    if (error == 0 && !is_new) {
        const struct rc_region_head *head = (const void *)region->base;
        /* Acquire: with the release in `make`. */
        (void)atomic_load_explicit(&head->is_ready, memory_order_acquire);
        if ((error = check(head, options, bytes, why)) == 0)
            stripe_count = head->stripe_count;
    }
    if (error == 0 && !plan(region, options->bytes, stripe_count)) {
        *why = "the near cache is too small for that many stripes, or too large for so few";
        error = RC_ERR_ARGUMENT;
    }
    if (error == 0 && is_new)
        error = make(region, options, why);
    if (error == 0 && !rc_lifeline_open(&region->lifeline, fd, path)) {
        *why = "the file of the shared near cache cannot be locked";
        error = RC_ERR_ARGUMENT;
    }
    if (error != 0)
        rc_region_close(region);
    return error;
}

static int open_named(struct rc_region *region, const struct rc_near_options *options,
                      uint32_t stripe_count, const char **why)
{
    char path[MAX_NAME + 16];
    struct stat status;
    if (!write_path(path, options->name, options->name_len)) {
        *why = "the name of a shared near cache has 1 to 200 letters, digits or ._-";
        return RC_ERR_ARGUMENT;
    }
    int fd = open_locked(path, &status, why);
    if (fd < 0)
        return RC_ERR_ARGUMENT;
    int error = join(region, options, stripe_count, fd, &status, path, why);
    if (error != 0 && status.st_size == 0)
        shm_unlink(path); /* ours, and of no use */
    flock(fd, LOCK_UN);   /* closing does not do it: the mapping keeps the file open */
    close(fd);
    return error;
}

int rc_region_open(struct rc_region *region, const struct rc_near_options *options,
                   const char **why)
{
    uint32_t stripe_count = options->stripes;
    memset(region, 0, sizeof(*region));
    rc_lifeline_init(&region->lifeline);
    if (options->bytes < RC_NEAR_MIN_BYTES) {
        *why = "a near cache has at least 64 KiB";
        return RC_ERR_ARGUMENT;
    }
    if (stripe_count == 0)
        stripe_count = power_below(options->bytes >> 22, 1, RC_REGION_STRIPES);
    int error = options->name == NULL ? open_anonymous(region, options, stripe_count, why)
                                      : open_named(region, options, stripe_count, why);
    if (error == 0)
        copy_head(region);
    return error;
}

void rc_region_close(struct rc_region *region)
{
    if (region->base != NULL)
        munmap(region->base, region->bytes);
    region->base = NULL;
    rc_lifeline_close(&region->lifeline);
}

int rc_region_unlink(const char *name, size_t name_len)
{
    char path[MAX_NAME + 16];
    return write_path(path, name, name_len) && shm_unlink(path) == 0 ? 0 : RC_ERR_ARGUMENT;
}

/* ---- owners and groups ----------------------------------------------------------------------- */

/* What a dead process left half done under this mutex: a group that is not counted yet, a slot
   without a pid, or a key behind the end of the backlog. None needs a repair. After a wait that ran
   out, because a process was stopped with the mutex, say, this process waits a short time only: an
   engine of many servers asks for a slot for each. */
bool rc_region_lock(struct rc_region *region)
{
    enum { IMPATIENCE_US = 5000 };
    /* Relaxed: advice. */
    bool is_lost = atomic_load_explicit(&region->is_lost, memory_order_relaxed);
    int error = rc_stripe_take_mutex(&region->head->mutex, region->shape.mutex_kind,
                                     is_lost ? IMPATIENCE_US : RC_STRIPE_PATIENCE_US);
    atomic_store_explicit(&region->is_lost, error == EBUSY, memory_order_relaxed);
    if (error == EOWNERDEAD)
        error = pthread_mutex_consistent(&region->head->mutex);
    return error == 0;
}

void rc_region_unlock(struct rc_region *region)
{
    pthread_mutex_unlock(&region->head->mutex);
}

static bool is_named(const struct rc_region *region)
{
    return region->lifeline.fd >= 0;
}

static uint32_t slot_of(const struct rc_region *region, const struct rc_near_owner *owner)
{
    return (uint32_t)(owner - region->owners);
}

/* Nothing filled by that slot up to now is coherent any more. */
static void set_free(struct rc_region *region, struct rc_near_owner *owner)
{
    rc_region_renew(owner, slot_of(region, owner));
    atomic_store_explicit(&owner->pid, 0, memory_order_relaxed);
}

static bool is_alive(const struct rc_region *region, const struct rc_near_owner *owner, int32_t pid)
{
    return is_named(region) ? rc_lifeline_is_held(&region->lifeline, slot_of(region, owner))
                            : rc_process_is_alive(pid, owner->started);
}

/* Frees slots of processes that are gone, and asks for `limit` of the taken ones whether theirs
   lives: that takes microseconds each, under a mutex that others wait for. It begins where the last
   time ended. Neighbours of one process are asked for once, but not in a named region: there each
   slot has its own lock, for process numbers of other namespaces mean nothing here. */
static void reap(struct rc_region *region, uint32_t limit)
{
    const struct rc_near_owner *last = NULL;
    int32_t last_pid = 0;
    bool lives = false;
    for (uint32_t i = 0; i < region->owner_count; i++) {
        uint32_t slot = region->reap_at;
        struct rc_near_owner *owner = &region->owners[slot];
        int32_t pid = atomic_load_explicit(&owner->pid, memory_order_relaxed);
        bool is_known =
            last != NULL && !is_named(region) && pid == last_pid && owner->started == last->started;
        if (pid != 0 && !is_known) {
            if (limit == 0)
                return;
            limit--;
            lives = is_alive(region, owner, pid);
            last = owner;
            last_pid = pid;
        }
        region->reap_at = slot + 1 < region->owner_count ? slot + 1 : 0;
        if (pid != 0 && !lives) {
            set_free(region, owner);
            /* Relaxed: rc_near_add_owner asks in the same thread, or another one tells, too. */
            atomic_fetch_add_explicit(&region->reaped, 1, memory_order_relaxed);
        }
    }
}

/* Whether this process may have slots at all. */
static bool may_own(struct rc_region *region)
{
    return is_named(region) ? rc_lifeline_renew(&region->lifeline)
                            : is_same_space(region->head->pid_space, space_of(PID_SPACE));
}

static struct rc_near_owner *take_slot(struct rc_region *region)
{
    for (uint32_t slot = 0; slot < region->owner_count; slot++) {
        struct rc_near_owner *owner = &region->owners[slot];
        if (atomic_load_explicit(&owner->pid, memory_order_relaxed) == 0 &&
            (!is_named(region) || rc_lifeline_take(&region->lifeline, slot)))
            return owner;
    }
    return NULL;
}

/* Why there is no slot. */
static const char BUSY[] = "another process has held the region's list of connections too long",
                  FOREIGN[] = "the region is of another pid namespace, or its file cannot be "
                              "opened again",
                  FULL[] = "the region has no place for one more connection";

struct rc_near_owner *rc_region_add_owner(struct rc_region *region, const char **why)
{
    enum { REAP_AT_ONCE = 32 }; /* 0.3 ms; all 1024 of a full region would be 10 ms */
    struct rc_near_owner *owner = NULL;
    int32_t pid = (int32_t)getpid();
    uint64_t started = rc_process_started(pid);
    *why = BUSY;
    if (!rc_region_lock(region))
        return NULL;
    *why = FOREIGN;
    if (may_own(region)) {
        *why = FULL;
        reap(region, REAP_AT_ONCE);
        owner = take_slot(region);
        if (owner == NULL) {
            reap(region, UINT32_MAX);
            owner = take_slot(region);
        }
    }
    if (owner != NULL) {
        atomic_store_explicit(&owner->asof_us, 0, memory_order_relaxed);
        atomic_store_explicit(&owner->offer, RC_OFFER_NONE, memory_order_relaxed);
        atomic_store_explicit(&owner->server, 0, memory_order_relaxed);
        atomic_store_explicit(&owner->noted_us, 0, memory_order_relaxed);
        atomic_store_explicit(&owner->read_us, 0, memory_order_relaxed);
        atomic_store_explicit(&owner->need_us, INT64_MAX, memory_order_relaxed);
        rc_region_renew(owner, slot_of(region, owner));
        owner->started = started;
        atomic_store_explicit(&owner->pid, pid, memory_order_relaxed);
    }
    rc_region_unlock(region);
    return owner;
}

void rc_region_remove_owner(struct rc_region *region, struct rc_near_owner *owner)
{
    if (!rc_region_lock(region)) {
        rc_region_renew(owner,
                        slot_of(region, owner)); /* the slot stays taken, for nobody's good */
        return;
    }
    set_free(region, owner);
    if (is_named(region))
        rc_lifeline_give(&region->lifeline, slot_of(region, owner));
    rc_region_unlock(region);
}

void rc_region_before_fork(struct rc_region *region)
{
    rc_lifeline_before_fork(&region->lifeline);
}

void rc_region_after_fork(struct rc_region *region)
{
    rc_lifeline_after_fork(&region->lifeline);
}

void rc_region_after_fork_in_child(struct rc_region *region)
{
    rc_lifeline_after_fork_in_child(&region->lifeline);
}

static bool is_group(const struct rc_region_group *group, uint64_t hash, const char *prefix,
                     size_t len)
{
    size_t kept = len < RC_REGION_PREFIX ? len : RC_REGION_PREFIX;
    return group->hash == hash && group->len == (uint32_t)len &&
           (kept == 0 || memcmp(group->prefix, prefix, kept) == 0);
}

uint8_t rc_region_group(struct rc_region *region, const char *prefix, size_t len, size_t min_bytes,
                        size_t max_bytes)
{
    struct rc_region_head *head = region->head;
    uint64_t hash = rc_mix(&region->shape.seed, prefix, len);
    if ((min_bytes == 0 && max_bytes == 0) || !rc_region_lock(region))
        return 0;
    uint32_t count = atomic_load_explicit(&head->bounds.count, memory_order_relaxed), id = 1;
    count = count < RC_NEAR_GROUPS ? count : RC_NEAR_GROUPS; /* damaged, perhaps */
    count = count > 0 ? count : 1;
    while (id < count && !is_group(&head->groups[id], hash, prefix, len))
        id++;
    if (id >= RC_NEAR_GROUPS) {
        rc_region_unlock(region);
        return 0;
    }
    if (id == count) {
        struct rc_region_group *group = &head->groups[id];
        group->hash = hash;
        group->len = (uint32_t)len;
        memcpy(group->prefix, prefix, len < RC_REGION_PREFIX ? len : RC_REGION_PREFIX);
    }
    /* Relaxed: the bounds are advice, each for itself. */
    atomic_store_explicit(&head->bounds.min[id], min_bytes, memory_order_relaxed);
    atomic_store_explicit(&head->bounds.max[id], max_bytes, memory_order_relaxed);
    if (id == count)
        atomic_store_explicit(&head->bounds.count, count + 1, memory_order_relaxed);
    rc_region_unlock(region);
    return (uint8_t)id;
}
