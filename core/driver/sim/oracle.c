#include "driver/sim/oracle.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "driver/sim/caller.h"
#include "driver/sim/gate.h"
#include "driver/sim/world.h"
#include "near/near_own.h"

enum { REPLAYED_WITHIN_US = 40000, /* of a new connection */ NOT_NOW_US = 400000 };

/* ---- values ---------------------------------------------------------------------------------- */

struct sim_value *sim_oracle_value(struct sim_world *world, size_t id)
{
    struct rc_buf *values = &world->oracle.values;
    return (struct sim_value *)(void *)(values->bytes + values->start) + id;
}

static size_t value_count(const struct sim_world *world)
{
    return rc_buf_len(&world->oracle.values) / sizeof(struct sim_value);
}

/* Number and key, and a tail of a length that follows from them. */
static size_t write_value(int key, size_t id, char text[SIM_VALUE_ROOM])
{
    int head = snprintf(text, SIM_VALUE_ROOM, "k%d #%zu ", key, id);
    size_t len = (size_t)head + id * 7 % (id % 16 == 0 ? 400 : 40);
    for (size_t at = (size_t)head; at < len; at++)
        text[at] = (char)('a' + (id + at) % 26);
    return len;
}

static struct sim_value *add_value(struct sim_world *world, int key)
{
    struct sim_value value = {
        .key = key, .since_us = INT64_MAX, .until_us = INT64_MIN, .dies_us = INT64_MAX};
    sim_must(rc_buf_append(&world->oracle.values, &value, sizeof(value)));
    return sim_oracle_value(world, value_count(world) - 1);
}

size_t sim_oracle_make(struct sim_world *world, int key, size_t *id, char text[SIM_VALUE_ROOM])
{
    add_value(world, key);
    *id = value_count(world) - 1;
    return write_value(key, *id, text);
}

void sim_oracle_init(struct sim_world *world)
{
    struct sim_oracle *oracle = &world->oracle;
    rc_buf_init(&oracle->values);
    add_value(world, -1); /* number 0: none */
    for (int key = 0; key < SIM_KEYS; key++) {
        oracle->keys[key].dies_us = INT64_MAX;
        oracle->deletes[key].acked_us = INT64_MIN;
        for (int machine = 0; machine < SIM_MACHINES; machine++)
            oracle->floors[machine][key] = INT64_MIN;
    }
    for (int lock = 0; lock < SIM_LOCKS; lock++)
        oracle->locks[lock].dies_us = INT64_MAX;
}

void sim_oracle_deinit(struct sim_world *world)
{
    rc_buf_deinit(&world->oracle.values);
}

/* When it was last current: INT64_MAX, it is. Where the servers' clock was set meanwhile, nobody
   can say when its time is over; then it ends when it is gone. */
static int64_t end_of(const struct sim_world *world, const struct sim_value *value)
{
    if (world->is_cluster && value->since_us == INT64_MAX) /* one that owned its place no longer */
        return world->lost_us[value->key];                 /* took it, which had lost it then */
    if (value->dated_us > world->stepped_us && value->dies_us < value->until_us)
        return value->dies_us > world->now_us ? INT64_MAX : value->dies_us;
    return value->until_us;
}

size_t sim_oracle_read(struct sim_world *world, const struct sim_claim *claim, const char *text,
                       size_t len)
{
    char head[32] = "", made[SIM_VALUE_ROOM];
    int key = -1;
    size_t id = 0;
    memcpy(head, text, len < sizeof(head) - 1 ? len : sizeof(head) - 1);
    if (sscanf(head, "k%d #%zu ", &key, &id) != 2 || id == 0 || id >= value_count(world) ||
        write_value(key, id, made) != len || memcmp(made, text, len) != 0) {
        sim_violation(world, "G1: %s of k%d gave what nobody has written: '%.*s'", claim->how,
                      claim->key, (int)(len < 60 ? len : 60), text);
        return 0;
    }
    if (key != claim->key || sim_oracle_value(world, id)->key != key) {
        sim_violation(world, "G1: %s of k%d gave a value of k%d", claim->how, claim->key, key);
        return 0;
    }
    return id;
}

void sim_oracle_once(struct sim_world *world, const struct sim_claim *claim, const char *text,
                     size_t len)
{
    size_t id = sim_oracle_read(world, claim, text, len);
    if (id == 0)
        return;
    sim_trace(world, "  a replica's word of k%d: #%zu", claim->key, id);
    /* A replica of one that is no master any more has what that one has taken meanwhile. */
    bool was_split = sim_world_lost_us(world, claim->key) != INT64_MIN;
    if (sim_oracle_value(world, id)->since_us == INT64_MAX && !was_split)
        sim_violation(world, "G1: %s of k%d gave #%zu, which has never stood there", claim->how,
                      claim->key, id);
}

static double ms(int64_t us)
{
    return (double)us / 1000;
}

void sim_oracle_saw(struct sim_world *world, const struct sim_claim *claim, const char *text,
                    size_t len)
{
    size_t id = sim_oracle_read(world, claim, text, len);
    if (id == 0)
        return;
    int64_t end_us = end_of(world, sim_oracle_value(world, id));
    sim_trace(world, "  %s of k%d: #%zu", claim->how, claim->key, id);
    /* It may have come from one that is no master any more. */
    if ((claim->is_near ? world->unknown_us : world->split_us)[claim->key] >= claim->since_us)
        return;
    if (end_us < claim->since_us)
        sim_violation(world,
                      "G2: %s of k%d gave #%zu, gone since %.3f ms; it had to be current at "
                      "or after %.3f ms",
                      claim->how, claim->key, id, ms(end_us), ms(claim->since_us));
    else if (end_us <= claim->floor_us)
        sim_violation(world,
                      "G4: %s of k%d gave #%zu, gone since %.3f ms, though this machine had "
                      "written at %.3f ms",
                      claim->how, claim->key, id, ms(end_us), ms(claim->floor_us));
}

static bool is_value_kind(uint8_t kind)
{
    return kind == RC_KIND_VALUE || kind == RC_KIND_PLAIN;
}

void sim_oracle_saw_nothing(struct sim_world *world, const struct sim_claim *claim)
{
    const struct sim_truth *truth = &world->oracle.keys[claim->key];
    bool was_there = truth->filled_us < claim->since_us || truth->filled_us <= claim->floor_us;
    sim_trace(world, "  %s of k%d: nothing", claim->how, claim->key);
    if (world->split_us[claim->key] >= claim->since_us)
        return;
    if (is_value_kind(truth->kind) && was_there &&
        end_of(world, sim_oracle_value(world, truth->id)) == INT64_MAX)
        sim_violation(world, "G1: %s of k%d found nothing, but #%zu stands there since %.3f ms",
                      claim->how, claim->key, truth->id, ms(truth->filled_us));
}

/* ---- changes --------------------------------------------------------------------------------- */

static struct sim_truth *find_truth(struct sim_oracle *oracle, const struct rc_store_change *change,
                                    int *key, int *lock)
{
    *key = *lock = -1;
    if (change->key_len == 2 && change->key[0] == 'k')
        *key = change->key[1] - '0';
    if (change->key_len == 5 && memcmp(change->key, "lock", 4) == 0)
        *lock = change->key[4] - '0';
    if (*key >= 0)
        return &oracle->keys[*key];
    return *lock >= 0 ? &oracle->locks[*lock] : NULL;
}

static bool had_lease(const struct sim_truth *old, const char *token)
{
    return old->kind == RC_KIND_LEASE && memcmp(old->token, token, RC_NONCE_SIZE) == 0;
}

static void check_value(struct sim_world *world, int key, const struct sim_truth *old, size_t id)
{
    const struct sim_value *value = sim_oracle_value(world, id);
    bool is_there = is_value_kind(old->kind) && old->id == id;
    bool is_refresh =
        value->is_refresh && old->kind == RC_KIND_VALUE &&
        memcmp(sim_oracle_value(world, old->id)->nonce, value->seen, RC_NONCE_SIZE) == 0;
    if (value->is_loaded && !is_there && !is_refresh && !had_lease(old, value->token))
        sim_violation(world, "G3: k%d: #%zu was stored by a load whose lease was void", key, id);
    if (!is_there && value->since_us != INT64_MAX && world->lost_us[key] < value->since_us)
        sim_violation(world, "G3: k%d: #%zu was written for the second time", key, id);
}

/* Nearer than this to a value's end the lease of its refresh may take its place. */
enum { COVER_US = 251 * 1000 };

static void check_lease(struct sim_world *world, int key, const struct sim_truth *old,
                        const char *token)
{
    if (old->kind == RC_KIND_LEASE && !had_lease(old, token))
        sim_violation(world, "G5: k%d: a lease took the place of another one", key);
    /* The lease of a refresh does, at the end of the value's life; where the servers' clock was set
       meanwhile, nobody knows when that is. */
    if (is_value_kind(old->kind) && old->dies_us > world->now_us + COVER_US &&
        (old->dies_us == INT64_MAX ||
         sim_oracle_value(world, old->id)->dated_us > world->stepped_us))
        sim_violation(world, "G3: k%d: a lease took the place of #%zu", key, old->id);
    if (old->kind == RC_KIND_NONE && sim_callers_load(world, key, token))
        sim_violation(world, "G3: k%d: the lease of a running load came into an empty key", key);
}

/* What stands in the key from now on. */
static void write_truth(struct sim_world *world, struct sim_truth *truth,
                        const struct sim_truth *now)
{
    bool was_value = is_value_kind(truth->kind), is_value = is_value_kind(now->kind);
    bool is_same = truth->kind == now->kind && truth->id == now->id &&
                   truth->token_len == now->token_len &&
                   memcmp(truth->token, now->token, now->token_len) == 0;
    struct sim_truth old = *truth;
    *truth = *now;
    truth->changed_us = is_same ? old.changed_us : world->now_us;
    truth->emptied_us = was_value && !is_value ? world->now_us : old.emptied_us;
    memcpy(truth->emptied_token, old.emptied_token, RC_TOKEN_SIZE);
    truth->filled_us = !was_value && is_value ? world->now_us : old.filled_us;
    truth->shortened_us = is_same && now->dies_us < old.dies_us ? world->now_us : old.shortened_us;
    if (was_value && (!is_value || old.id != now->id)) {
        struct sim_value *value = sim_oracle_value(world, old.id);
        int64_t end_us = end_of(world, value);
        value->until_us = end_us < world->now_us ? end_us : world->now_us;
    }
    if (is_value) {
        struct sim_value *value = sim_oracle_value(world, now->id);
        value->since_us = value->since_us == INT64_MAX ? world->now_us : value->since_us;
        value->until_us = INT64_MAX;
        value->dies_us = now->dies_us > world->now_us ? now->dies_us : world->now_us;
        value->dated_us = world->now_us;
    }
}

/* Redis lets a key live through the millisecond it expires in. */
static int64_t death_of(const struct sim_world *world, const struct rc_store_change *change)
{
    return change->expires_ms == RC_STORE_NEVER ? INT64_MAX
                                                : (change->expires_ms + 1) * 1000 - world->unix_us;
}

static void read_change(struct sim_world *world, int key, const struct rc_store_change *change,
                        struct sim_truth *now)
{
    rc_result entry = {.status = 0};
    struct sim_claim claim = {.key = key, .how = "the master"};
    *now = (struct sim_truth){.dies_us = death_of(world, change)};
    if (change->value == NULL)
        return;
    rc_entry_read(&entry, change->value, change->value_len);
    now->kind = entry.kind;
    if (entry.kind == RC_KIND_LEASE || entry.kind == RC_KIND_ERROR) {
        memcpy(now->token, entry.version, RC_NONCE_SIZE);
        now->token_len = RC_NONCE_SIZE;
    } else if (is_value_kind(entry.kind)) {
        now->id = sim_oracle_read(world, &claim, entry.data, entry.len);
        if (now->id == 0)
            now->kind = RC_KIND_NONE;
    }
}

/* A connection that was opened behind the end of a client's deletes of the key has no business to
   remove the value, unless it is one that such a delete was about: a failover has brought it
   back. */
static void check_removal(struct sim_world *world, int key, const struct sim_truth *old)
{
    const struct sim_wire *wire = world->speaking;
    const struct sim_value *value = sim_oracle_value(world, old->id);
    bool may_be_over = value->dies_us != INT64_MAX && value->dated_us <= world->stepped_us;
    if (wire == NULL || may_be_over || end_of(world, value) != INT64_MAX)
        return;
    const struct sim_deletes *asked = &world->oracle.asked[wire->number][key];
    if (asked->running == 0 && asked->ended_us < wire->opened_us &&
        asked->began_us < value->since_us)
        sim_violation(world,
                      "G3: k%d: #%zu, there since %.3f ms, was taken away by client %d, whose "
                      "last delete began at %.3f ms",
                      key, old->id, ms(value->since_us), wire->number, ms(asked->began_us));
}

static const char *const KINDS[] = {"nothing", "#", "nil", "an error marker", "a lease", "plain #"};

static void change_key(struct sim_world *world, int key, const struct rc_store_change *change)
{
    struct sim_truth now, *truth = &world->oracle.keys[key];
    read_change(world, key, change, &now);
    if (change->value == NULL && is_value_kind(truth->kind))
        check_removal(world, key, truth);
    sim_trace(world, "  master: k%d = %s%.0zu", key, KINDS[now.kind % 6], now.id);
    if (is_value_kind(now.kind))
        check_value(world, key, truth, now.id);
    else if (now.kind == RC_KIND_LEASE)
        check_lease(world, key, truth, now.token);
    else if (now.kind == RC_KIND_ERROR && !had_lease(truth, now.token) &&
             truth->kind != RC_KIND_ERROR)
        sim_violation(world, "G3: k%d: an error was stored by a load whose lease was void", key);
    write_truth(world, truth, &now);
}

static void note_loss(const struct sim_world *world, struct sim_truth *truth)
{
    truth->emptied_us = world->now_us;
    memcpy(truth->emptied_token, truth->token, RC_TOKEN_SIZE);
}

static void change_lock(struct sim_world *world, int lock, const struct rc_store_change *change)
{
    struct sim_truth now = {.dies_us = death_of(world, change)};
    struct sim_truth *truth = &world->oracle.locks[lock];
    if (change->value != NULL && change->value_len == RC_TOKEN_SIZE) {
        now.kind = RC_KIND_LEASE;
        now.token_len = RC_TOKEN_SIZE;
        memcpy(now.token, change->value, RC_TOKEN_SIZE);
        sim_callers_check_lock(world, lock, change->value);
    }
    sim_trace(world, "  master: lock%d = %.*s", lock, now.token_len ? 6 : 7,
              now.token_len ? now.token : "nothing");
    bool is_same =
        now.token_len == truth->token_len && memcmp(now.token, truth->token, now.token_len) == 0;
    if (truth->kind == RC_KIND_LEASE && !is_same && truth->dies_us > world->now_us)
        note_loss(world, truth);
    write_truth(world, truth, &now);
}

static void flush(struct sim_world *world, const struct sim_node *node)
{
    struct rc_store_change gone = {.expires_ms = RC_STORE_NEVER};
    for (int key = 0; key < SIM_KEYS; key++)
        if (sim_world_has(node, key)) {
            change_key(world, key, &gone);
            sim_ledger_flush(world, key);
        }
    for (int lock = 0; lock < SIM_LOCKS; lock++)
        if (sim_world_has(node, SIM_KEYS + lock))
            change_lock(world, lock, &gone);
}

/* Where a place goes to another node key by key: what this one has found to be over is there. */
static bool is_elsewhere(const struct sim_world *world, const struct sim_node *node, int place,
                         const struct rc_store_change *change)
{
    const struct sim_node *heir = world->moves[place].heir;
    return heir != NULL && node != heir && change->value == NULL &&
           sim_gate_has_key(heir, change->key, change->key_len);
}

void sim_oracle_change(struct sim_world *world, const struct sim_node *node,
                       const struct rc_store_change *change)
{
    int key, lock, place = sim_ledger_place(change);
    if (change->key == NULL) {
        flush(world, node);
    } else if (place >= 0) {
        if (sim_world_has(node, place) && !is_elsewhere(world, node, place, change))
            sim_ledger_change(world, change);
    } else if (find_truth(&world->oracle, change, &key, &lock) == NULL ||
               is_elsewhere(world, node, key >= 0 ? key : SIM_KEYS + lock, change)) {
        return;
    } else if (key >= 0 && sim_world_has(node, key)) {
        change_key(world, key, change);
    } else if (lock >= 0 && sim_world_has(node, SIM_KEYS + lock)) {
        change_lock(world, lock, change);
    }
}

struct heirloom {
    struct sim_world *world;
    const struct sim_node *holder;
    struct sim_truth keys[SIM_KEYS];
    struct sim_truth locks[SIM_LOCKS];
};

static void inherit(void *owner, const struct rc_store_change *change)
{
    struct heirloom *heirloom = owner;
    int key, lock;
    if (find_truth(&heirloom->world->oracle, change, &key, &lock) == NULL ||
        heirloom->holder != heirloom->world->holders[key >= 0 ? key : SIM_KEYS + lock])
        return;
    if (key >= 0) {
        read_change(heirloom->world, key, change, &heirloom->keys[key]);
    } else if (change->value_len == RC_TOKEN_SIZE) {
        heirloom->locks[lock] = (struct sim_truth){
            .kind = RC_KIND_LEASE,
            .dies_us = death_of(heirloom->world, change),
            .token_len = RC_TOKEN_SIZE,
        };
        memcpy(heirloom->locks[lock].token, change->value, RC_TOKEN_SIZE);
    }
}

void sim_oracle_lose(struct sim_world *world, unsigned places)
{
    struct heirloom heirloom = {.world = world};
    sim_ledger_lose(world, places);
    for (int i = 0; i < 2 * world->shard_count; i++) {
        heirloom.holder = &world->nodes[i];
        rc_store_each(world->nodes[i].store, inherit, &heirloom);
    }
    for (int key = 0; key < SIM_KEYS; key++) {
        if ((places & 1U << key) == 0)
            continue;
        world->lost_us[key] = world->now_us;
        sim_trace(world, "  new master: k%d = %s%.0zu", key, KINDS[heirloom.keys[key].kind % 6],
                  heirloom.keys[key].id);
        write_truth(world, &world->oracle.keys[key], &heirloom.keys[key]);
        for (int machine = 0; machine < SIM_MACHINES; machine++)
            world->oracle.floors[machine][key] = INT64_MIN; /* it may have been lost */
    }
    for (int lock = 0; lock < SIM_LOCKS; lock++) {
        if ((places & 1U << (SIM_KEYS + lock)) == 0)
            continue;
        world->lost_us[SIM_KEYS + lock] = world->now_us;
        write_truth(world, &world->oracle.locks[lock], &heirloom.locks[lock]);
        world->oracle.fences[lock] = 0;
    }
}

/* ---- acknowledgements ------------------------------------------------------------------------ */

static void raise_floor(struct sim_world *world, int machine, int key, int64_t at_us)
{
    int64_t *floor_us = &world->oracle.floors[machine][key];
    *floor_us = at_us > *floor_us ? at_us : *floor_us;
}

void sim_oracle_stored(struct sim_world *world, int machine, int key, size_t id, int64_t began_us)
{
    const struct sim_value *value = sim_oracle_value(world, id);
    if (sim_world_lost_us(world, key) >= began_us)
        return;
    if (value->since_us == INT64_MAX)
        sim_violation(world, "G1: k%d: #%zu was reported stored and never was", key, id);
    else
        raise_floor(world, machine, key, value->since_us);
}

void sim_oracle_deleted(struct sim_world *world, int client, int key, int64_t began_us)
{
    const struct sim_truth *truth = &world->oracle.keys[key];
    struct sim_client *deleter = &world->clients[client];
    struct sim_delete *delete = &world->oracle.deletes[key];
    char name[2] = {'k', (char)('0' + key)};
    const struct rc_server_node *node =
        rc_topology_node_of(&deleter->engine.topology, name, sizeof(name));
    const char *version = rc_replay_known(&node->replay, name, sizeof(name));
    *delete = (struct sim_delete){client, deleter->births, began_us, world->now_us, false, ""};
    delete->is_known = version != NULL;
    if (version != NULL)
        memcpy(delete->version, version, RC_NONCE_SIZE);
    if (sim_world_lost_us(world, key) >= began_us)
        return;
    raise_floor(world, (int)(deleter->machine - world->machines), key,
                truth->emptied_us >= began_us ? truth->emptied_us : began_us - 1);
}

void sim_oracle_begin_delete(struct sim_world *world, int client, int key)
{
    struct sim_deletes *asked = &world->oracle.asked[client][key];
    asked->running++;
    asked->began_us = world->now_us;
}

void sim_oracle_end_delete(struct sim_world *world, int client, int key)
{
    struct sim_deletes *asked = &world->oracle.asked[client][key];
    assert(asked->running > 0);
    asked->running--;
    asked->ended_us = world->now_us;
}

void sim_oracle_leased(struct sim_world *world, int key, const char token[RC_NONCE_SIZE])
{
    for (size_t id = 1; id < value_count(world); id++) {
        const struct sim_value *value = sim_oracle_value(world, id);
        if (value->is_loaded && memcmp(value->token, token, RC_NONCE_SIZE) == 0)
            sim_violation(world, "G5: k%d: the token of #%zu was given out again", key, id);
    }
}

void sim_oracle_granted(struct sim_world *world, int lock, int64_t fence, int64_t asked_us)
{
    struct sim_oracle *oracle = &world->oracle;
    if (world->is_cluster && sim_world_lost_us(world, SIM_KEYS + lock) >= asked_us)
        return; /* it may be one of a server that is no master any more */
    /* The fence follows the servers' clock; where that was set, a flush may set it back. */
    if (fence <= oracle->fences[lock] && asked_us > oracle->granted_us[lock] &&
        world->stepped_us == INT64_MIN)
        sim_violation(world, "G9: lock%d: fence %" PRId64 " behind %" PRId64, lock, fence,
                      oracle->fences[lock]);
    if (fence > oracle->fences[lock]) {
        oracle->fences[lock] = fence;
        oracle->granted_us[lock] = world->now_us;
    }
}

/* ---- standing orders ------------------------------------------------------------------------- */

/* A copy that may be served was current at its owner's horizon: what has changed before that was
   told. */
static void look_at(struct sim_world *world, const struct sim_machine *machine, int key)
{
    char name[4] = {'k', (char)('0' + key)}, buffer[SIM_VALUE_ROOM];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof(buffer)};
    struct sim_claim claim = {.key = key, .how = "the near cache"};
    if (rc_near_lookup(machine->near, NULL, 0, name, 2, 0, &value) != RC_NEAR_STALE)
        return;
    const struct rc_near_owner *owner = rc_region_owner(&machine->near->region, value.handle.stamp);
    if (atomic_load(&owner->stamp) != value.handle.stamp)
        return; /* of an earlier epoch: nobody is told that it is current */
    size_t id = sim_oracle_read(world, &claim, value.data, value.len);
    int64_t end_us = id != 0 ? end_of(world, sim_oracle_value(world, id)) : INT64_MAX;
    if (end_us < rc_near_asof(owner) && world->unknown_us[key] < rc_near_asof(owner))
        sim_violation(world,
                      "G2: machine %d keeps #%zu of k%d as of %.3f ms, but it was gone at "
                      "%.3f ms",
                      (int)(machine - world->machines), id, key, ms(rc_near_asof(owner)),
                      ms(end_us));
}

void sim_oracle_look(struct sim_world *world)
{
    for (int machine = 0; machine < SIM_MACHINES; machine++)
        for (int key = 0; key < SIM_KEYS; key++)
            look_at(world, &world->machines[machine], key);
}

/* What the client's commands on that key travel over. NULL: nothing. */
static const struct sim_wire *wire_of(const struct sim_client *client, int key)
{
    const struct rc_topology *topology = &client->engine.topology;
    char name[2] = {'k', (char)('0' + key)};
    int32_t slot = rc_topology_slot(topology, name, sizeof(name));
    return sim_wire_of(rc_topology_command_link(topology, slot));
}

static void note_routes(struct sim_world *world, struct sim_client *client)
{
    for (int key = 0; key < SIM_KEYS; key++) {
        const struct sim_wire *wire = wire_of(client, key);
        const struct sim_node *node = wire != NULL ? wire->node : NULL;
        if (client->routes[key] == node)
            continue;
        client->routes[key] = node;
        client->routed_us[key] = world->now_us;
    }
}

/* Whether the key's place has lain with one node for long enough that a client could say there what
   it has to. */
static bool is_steady(const struct sim_world *world, int key, int64_t since_us)
{
    const struct sim_node *holder = world->holders[key];
    return !world->is_cluster ||
           (world->moves[key].target == NULL && !holder->is_down &&
            holder->beliefs[key].owner == holder->number && world->lost_us[key] < since_us);
}

/* Whether the client has been connected to the key's master for long enough to say what it has to.
   Where a node of a cluster says "not now" it says it again, in a moment. */
static bool has_told(const struct sim_world *world, const struct sim_client *client, int key)
{
    const struct sim_wire *wire = wire_of(client, key);
    int64_t since_us = world->now_us - REPLAYED_WITHIN_US - 8 * world->weather.delay_max_us -
                       (world->is_cluster ? NOT_NOW_US : 0);
    return sim_world_runs(client) && client->paused_until_us < since_us && wire != NULL &&
           wire->is_open && wire->opened_us < since_us && client->routed_us[key] < since_us &&
           wire->node == world->holders[key] && is_steady(world, key, since_us) &&
           wire->node->stopped_until_us < since_us && !wire->to_server.swallows &&
           !wire->to_client.swallows;
}

/* From then on nothing moves for a client that has seen where everything lies. */
enum { SEEN_US = 1000 * 1000, SENT_ELSEWHERE_MAX = 64, MAPS_A_SECOND = 2 };

/* What the nodes that see a majority know. */
static int64_t best_epoch(const struct sim_world *world)
{
    int64_t best = 0;
    for (int i = 0; i < 2 * world->shard_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        best = !node->is_down && node->epoch > best ? node->epoch : best;
    }
    return best;
}

static void audit_routes(struct sim_world *world, struct sim_client *client)
{
    const rc_stats *stats = &client->engine.context.stats;
    int64_t age_us = world->now_us - client->born_us, epoch = client->engine.cluster.epoch;
    if (stats->map_refreshes > 2 + MAPS_A_SECOND * (uint64_t)(age_us / 1000000 + 1))
        sim_violation(world, "G8: client %d has asked for its map %d times within %.3f ms",
                      client->number, (int)stats->map_refreshes, ms(age_us));
    if (epoch < client->epoch)
        sim_violation(world, "G8: client %d takes a map of epoch %d, though it had one of %d",
                      client->number, (int)epoch, (int)client->epoch);
    if (epoch > client->epoch && epoch > best_epoch(world))
        sim_violation(world, "G8: client %d takes the map of a minority, of epoch %d",
                      client->number, (int)epoch);
    client->epoch = epoch;
    if (client->settled_us != world->settled_us) {
        client->redirections = stats->redirections;
        if (world->settled_us != INT64_MAX && world->now_us < world->settled_us + SEEN_US)
            return;
        client->settled_us = world->settled_us;
    } else if (world->settled_us != INT64_MAX &&
               stats->redirections - client->redirections > SENT_ELSEWHERE_MAX) {
        sim_violation(world, "G8: client %d was sent elsewhere %d times, and nothing moves",
                      client->number, (int)(stats->redirections - client->redirections));
    }
}

/* A delete was acknowledged, and a failover has brought back what it deleted. The client that
   deleted it does it again, if it knows which version that was. */
static void audit_deletes(struct sim_world *world)
{
    for (int key = 0; key < SIM_KEYS; key++) {
        const struct sim_delete *delete = &world->oracle.deletes[key];
        const struct sim_truth *truth = &world->oracle.keys[key];
        const struct sim_client *client = &world->clients[delete->client];
        const struct sim_value *value = sim_oracle_value(world, truth->id);
        if (delete->acked_us == INT64_MIN || !delete->is_known ||
            delete->acked_us > world->lost_us[key] || client->births != delete->birth ||
            !is_value_kind(truth->kind) || truth->changed_us < world->lost_us[key] ||
            !has_told(world, client, key))
            continue;
        if (memcmp(value->nonce, delete->version, RC_NONCE_SIZE) == 0)
            sim_violation(world, "G3: k%d: #%zu is back, though it was deleted at %.3f ms", key,
                          truth->id, ms(delete->acked_us));
    }
}

void sim_oracle_audit(struct sim_world *world)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct sim_client *client = &world->clients[i];
        if (!sim_world_runs(client))
            continue;
        note_routes(world, client);
        if (world->is_cluster)
            audit_routes(world, client);
    }
    audit_deletes(world);
}
