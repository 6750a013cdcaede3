#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "engine/flight.h"
#include "test/peer.h"
#include "test/test.h"

enum { OPS = 6 };

static struct peer_server server;
static struct peer_client client;
static struct peer_op ops[OPS];

static void set_up(void)
{
    peer_init(&server);
    peer_open(&client, &server, NULL);
    for (int i = 0; i < OPS; i++)
        peer_op_init(&ops[i]);
}

static void take_down(void)
{
    CHECK(peer_take_down(&client, ops, OPS));
}

static void reads_writes_and_deletes(void)
{
    set_up();
    peer_set(&client, &ops[0], "key", "one", 3000);
    peer_run(&server);
    peer_get(&client, &ops[1], "key", RC_WANT_TTL);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_HIT) && peer_says(&ops[1], "one"));
    CHECK(ops[1].op.result.ttl_ms == 3000 && ops[1].op.result.kind == RC_KIND_PLAIN);
    peer_delete(&client, &ops[2], "key");
    peer_run(&server);
    CHECK(peer_ended(&ops[2], 0, RC_DONE) && ops[2].op.result.number == 1);
    peer_get(&client, &ops[1], "key", RC_WANT_TTL);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], 0, RC_MISS) && ops[1].op.result.ttl_ms == -2);
    take_down();
}

static void hands_the_error_of_one_command_to_its_op_alone(void)
{
    set_up();
    peer_get(&client, &ops[0], "key", 0);
    peer_run(&server);
    server.error = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    server.errors = 1;
    peer_get(&client, &ops[1], "key", 0);
    peer_get(&client, &ops[2], "key", 0);
    peer_run(&server);
    CHECK(ops[1].finished == 1 && ops[1].op.result.status == RC_ERR_REDIS);
    CHECK(peer_says(&ops[1], server.error + 1));
    CHECK(peer_ended(&ops[2], 0, RC_MISS));
    take_down();
}

static void cancels_by_tag_what_runs_and_what_leads(void)
{
    set_up();
    for (int i = 0; i < 4; i++)
        ops[i].op.ask.tag = i < 3 ? 7 : 8;
    peer_load(&client, &ops[0], "key", 0, 1000, 9000, 9000);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], 0, RC_LOAD));
    ops[0].op.ask.tag = 9; /* of the next operation in this slot */
    peer_load(&client, &ops[1], "key", 0, 1000, 9000, 9000);
    peer_get(&client, &ops[2], "key", 0);
    peer_load(&client, &ops[3], "key", 0, 1000, 9000, 9000);
    CHECK(rc_engine_cancel(&client.engine, 7) == 3);
    CHECK(rc_engine_cancel(&client.engine, 7) == 0);
    peer_run(&server);
    CHECK(peer_ended(&ops[1], RC_ERR_CANCELLED, RC_DONE));
    CHECK(peer_ended(&ops[2], RC_ERR_CANCELLED, RC_DONE));
    CHECK(peer_ended(&ops[3], 0, RC_LOAD));
    peer_publish(&client, &ops[0], "late", 1000, 0);
    peer_run(&server);
    CHECK(peer_ended(&ops[0], RC_ERR_CANCELLED, RC_DONE));
    take_down();
}

/* The slot's memory goes with it. */
static void touches_nothing_that_was_dropped(void)
{
    set_up();
    struct peer_op *gone = malloc(sizeof *gone);
    rc_engine_close(&client.engine);
    peer_op_init(gone);
    peer_get(&client, gone, "key", 0); /* ends at once, but was not handed back yet */
    rc_engine_drop(&client.engine, &gone->op);
    peer_op_deinit(gone);
    free(gone);
    peer_run(&server);
    take_down();
}

static void tells_how_it_is(void)
{
    rc_health health;
    set_up();
    server.refuses = true;
    peer_get(&client, &ops[0], "key", 0);
    peer_sleep(&server, 300);
    rc_engine_get_health(&client.engine, &health);
    CHECK(!health.ready && !health.tracking && health.down_ms == 300);
    CHECK(strcmp(health.cause, "Connection refused") == 0);
    CHECK(strcmp(health.address, "127.0.0.1:6379/0") == 0 && health.server[0] == '\0');
    CHECK(health.mode[0] == '\0' && health.off[0] == '\0');
    server.refuses = false;
    server.no_tracking = true;
    peer_sleep(&server, 1001);
    peer_load(&client, &ops[1], "key", RC_PUT, 1000, 9000, 9000);
    peer_run(&server);
    rc_engine_get_health(&client.engine, &health);
    CHECK(health.ready && !health.tracking && health.down_ms == 0);
    CHECK(strncmp(health.cause, "NOPERM", 6) == 0);
    CHECK(strcmp(health.server, "redis 7.0.15") == 0);
    CHECK(strncmp(health.off, "tracking: NOPERM", 16) == 0);
    const char *line_end = strchr(health.off, '\n'); /* of the only one */
    CHECK(line_end != NULL && line_end[1] == '\0');
    take_down();
}

static void closing_twice_and_using_it_afterwards_is_harmless(void)
{
    set_up();
    peer_get(&client, &ops[0], "key", 0);
    rc_engine_close(&client.engine);
    peer_get(&client, &ops[1], "key", 0);
    rc_engine_close(&client.engine);
    rc_engine_end(&client.engine);
    peer_load(&client, &ops[2], "key", 0, 1000, 9000, 9000);
    peer_run(&server);
    for (int i = 0; i < 3; i++)
        CHECK(peer_ended(&ops[i], RC_ERR_CLOSED, RC_DONE));
    CHECK(rc_engine_is_drained(&client.engine));
    CHECK(rc_engine_deadline(&client.engine) == INT64_MAX);
    take_down();
}

/* ---- random faults --------------------------------------------------------------------------- */

enum { SLOTS = 24, VALUES = 3, NAMES = 2, STEPS = 3000 };

enum slot_state { IDLE, RUNNING, LEADING };

struct slot {
    struct peer_op op;
    struct rc_lock lock;
    enum slot_state state;
    int name; /* which value or lock */
    bool is_lock;
    bool degraded;
    int64_t deadline_us;
    int known;  /* the version known when it was submitted */
    int loaded; /* by the loader, or deleted */
};

static struct {
    uint64_t random;
    struct peer_server server;
    struct peer_client clients[2];
    struct slot slots[2][SLOTS];
    int version[VALUES]; /* of the source of truth */
    int known[VALUES];   /* what everybody must see who asks now */
    int64_t fence[NAMES];
    int64_t outcomes[8];
} world;

static uint32_t below(uint32_t limit)
{
    return test_below(&world.random, limit);
}

static const char *value_key(int name)
{
    static const char *const keys[VALUES] = {"v0", "v1", "v2"};
    return keys[name];
}

/* -1: not one of our values. */
static int version_of(int name, const char *bytes, size_t len)
{
    char text[64];
    int version = -1, of = -1;
    if (len == 0 || len >= sizeof text)
        return -1;
    memcpy(text, bytes, len);
    text[len] = '\0';
    if (sscanf(text, "v%d:%d", &of, &version) != 2 || of != name)
        return -1;
    return version;
}

static bool is_entry_of_ours(const rc_result *result)
{
    return result->kind == RC_KIND_VALUE;
}

static void read_result(struct slot *slot)
{
    const rc_result *result = &slot->op.op.result;
    enum rc_op_kind kind = slot->op.op.ask.kind;
    slot->state = IDLE;
    if (result->status != 0) {
        CHECK(result->status >= RC_ERR_REFUSED && result->status <= RC_ERR_TIMEOUT);
        return;
    }
    world.outcomes[result->outcome]++;
    if (kind == RC_OP_LOCK_ACQUIRE && peer_holds(&world.server, &slot->lock)) {
        CHECK(result->number > world.fence[slot->name]);
        world.fence[slot->name] = result->number;
    }
    if (kind == RC_OP_DELETE && slot->loaded > world.known[slot->name])
        world.known[slot->name] = slot->loaded;
    bool shows = result->outcome == RC_HIT ||
                 (result->outcome == RC_UNSTORED && is_entry_of_ours(result)) ||
                 (result->outcome == RC_LOAD && (result->flags & RC_REFRESH));
    if (shows && !slot->is_lock) {
        CHECK(is_entry_of_ours(result));
        int version = version_of(slot->name, result->data, result->len);
        CHECK(version >= 0);
        CHECK(version >= slot->known || (result->flags & RC_DEGRADED));
    }
    if (result->outcome == RC_LOAD) {
        slot->state = LEADING;
        slot->degraded = result->flags & RC_DEGRADED;
        slot->loaded = world.version[slot->name];
    }
}

static void check_slots(void)
{
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < SLOTS; i++) {
            struct slot *slot = &world.slots[c][i];
            if (slot->state != RUNNING)
                continue;
            CHECK(slot->op.finished <= 1);
            if (slot->op.finished == 1)
                read_result(slot);
            else
                CHECK(world.server.now_us < slot->deadline_us);
        }
    }
}

static void check_server(void)
{
    for (int name = 0; name < VALUES; name++) {
        const struct peer_key *key = peer_find(&world.server, value_key(name));
        rc_result entry = {0};
        int holders = 0;
        if (key == NULL)
            continue;
        rc_entry_read(&entry, rc_buf_head(&key->value), rc_buf_len(&key->value));
        if (entry.kind == RC_KIND_VALUE)
            CHECK(version_of(name, entry.data, entry.len) >= world.known[name]);
        for (int i = 0; i < 2 * SLOTS; i++) {
            const struct slot *slot = &world.slots[i / SLOTS][i % SLOTS];
            holders += slot->op.op.run.leads && !slot->degraded && slot->name == name &&
                       entry.kind == RC_KIND_LEASE &&
                       memcmp(slot->op.op.run.token, entry.version, RC_NONCE_SIZE) == 0;
        }
        CHECK(holders <= 1);
    }
    for (int name = 0; name < NAMES; name++) {
        int holders = 0;
        for (int i = 0; i < 2 * SLOTS; i++) {
            struct slot *slot = &world.slots[i / SLOTS][i % SLOTS];
            holders +=
                slot->is_lock && slot->name == name && peer_holds(&world.server, &slot->lock);
        }
        CHECK(holders <= 1);
    }
    CHECK(!world.server.went_round);
}

static void expect(struct slot *slot, int64_t ms)
{
    slot->state = RUNNING;
    slot->deadline_us = world.server.now_us + ms * 1000 + 1;
}

static void start_value_op(struct peer_client *on, struct slot *slot)
{
    static const uint32_t FLAGS[] = {
        0,         RC_WANT_TTL, RC_WANT_TTL, RC_SCRIPT_FIRST, RC_SCRIPT_FIRST | RC_WANT_TTL,
        RC_STRICT, RC_PUT,      RC_NO_RENEW};
    const char *key = value_key(slot->name);
    int32_t wait_ms = 1 + (int32_t)below(4000);
    slot->known = world.known[slot->name];
    switch (below(8)) {
    case 0:
        peer_get(on, &slot->op, key, below(2) ? RC_WANT_TTL : 0);
        expect(slot, 500);
        break;
    case 1:
        slot->loaded = ++world.version[slot->name];
        peer_delete(on, &slot->op, key);
        expect(slot, 500);
        break;
    default:
        peer_load(on, &slot->op, key, FLAGS[below(sizeof FLAGS / sizeof *FLAGS)],
                  100 + (int32_t)below(1000), 500 + (int32_t)below(3000), wait_ms);
        expect(slot, wait_ms);
    }
}

static void use_lock(struct peer_client *on, struct slot *slot)
{
    if (atomic_load(&slot->lock.state) == RC_LOCK_HELD && below(2)) {
        peer_unlock(on, &slot->op, &slot->lock);
        expect(slot, 500);
    } else if (atomic_load(&slot->lock.state) == RC_LOCK_HELD) {
        peer_extend(on, &slot->op, &slot->lock, 100 + (int32_t)below(3000));
        expect(slot, 500);
    } else {
        int32_t wait_ms = below(3) == 0 ? 0 : (int32_t)below(4000);
        uint32_t flags = below(4) == 0 ? RC_NO_RENEW : 0;
        peer_acquire(on, &slot->op, &slot->lock, flags, 100 + (int32_t)below(2000), wait_ms,
                     below(3) == 0 ? 1000 : 0);
        expect(slot, wait_ms > 0 ? wait_ms : 501);
    }
}

static void end_load(struct peer_client *on, struct slot *slot)
{
    char value[32];
    slot->known = world.known[slot->name];
    snprintf(value, sizeof value, "v%d:%d", slot->name, slot->loaded);
    switch (below(8)) {
    case 0: peer_fail(on, &slot->op, "failed", below(2) ? 300 : 0); break;
    case 1: peer_release(on, &slot->op); break;
    case 2: peer_publish(on, &slot->op, value, 0, 0); break;
    default: peer_publish(on, &slot->op, value, 100 + below(3000), below(2) ? 1000 : 0);
    }
    expect(slot, 500);
}

static void step_slot(void)
{
    int c = (int)below(2);
    struct slot *slot = &world.slots[c][below(SLOTS)];
    struct peer_client *on = &world.clients[c];
    slot->op.op.ask.tag = 1 + below(40);
    if (slot->state == RUNNING || (slot->state == LEADING && below(12) == 0)) {
        if (below(10) != 0 && slot->state == RUNNING)
            return;
        rc_engine_drop(&on->engine, &slot->op.op);
        slot->state = IDLE;
    } else if (slot->state == LEADING) {
        end_load(on, slot);
    } else if (slot->is_lock) {
        use_lock(on, slot);
    } else {
        start_value_op(on, slot);
    }
}

static void step_fault(void)
{
    struct peer_conn *conn = world.clients[below(2)].conns[below(2)];
    struct peer_server *s = &world.server;
    int name = (int)below(VALUES);
    switch (below(16)) {
    case 0: peer_cut(conn, below(2)); break;
    case 1: conn->mute = !conn->mute; break;
    case 2: conn->deaf = !conn->deaf; break;
    case 3: conn->clogged = !conn->clogged; break;
    case 4: s->refuses = below(3) == 0; break;
    case 5: s->silent = below(3) == 0; break;
    case 6: s->loading = below(3) == 0; break;
    case 7: memset(s->known, 0, sizeof s->known); break;
    case 8: s->no_tracking = below(3) == 0; break;
    case 9: s->chunk = below(2) ? 0 : 1 + below(50); break;
    case 10:
        s->error = "-OOM command not allowed when used memory > 'maxmemory'.";
        s->errors = (int)below(3);
        break;
    case 11:
        if (conn->is_open && rc_link_is_ready(conn->link))
            peer_say(conn, "?!\r\n", 4); /* what looks like an answer could not be told from one */
        break;
    case 12: (void)rc_engine_cancel(&world.clients[below(2)].engine, 1 + below(40)); break;
    default: world.known[name] = ++world.version[name]; peer_unlink(s, value_key(name));
    }
}

static void heal(void)
{
    struct peer_server *s = &world.server;
    s->refuses = s->silent = s->loading = s->no_tracking = false;
    s->errors = 0;
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < RC_NODE_LINKS; i++) {
            struct peer_conn *conn = world.clients[c].conns[i];
            conn->mute = conn->deaf = conn->clogged = false;
        }
    }
}

static void check_nothing_is_left(struct rc_engine *engine)
{
    CHECK(rc_list_is_empty(&engine->running));
    CHECK(rc_list_is_empty(&engine->context.finished));
    CHECK(engine->context.running_ops == 0);
    CHECK(engine->leases.flights.count == 0);
    CHECK(engine->leases.served_bytes == 0);
    CHECK(rc_list_is_empty(&engine->leases.leading));
    CHECK(engine->locks.lines.count == 0);
    CHECK(rc_list_is_empty(&engine->locks.held));
    CHECK(engine->track.watches.count == 0);
    CHECK(engine->context.stats.in_flight == 0);
    CHECK(engine->context.stats.active_leases == 0);
    CHECK(engine->context.stats.active_locks == 0);
}

/* Everything is given up or comes to its end; the server is well again. */
static void wind_down(void)
{
    heal();
    for (int i = 0; i < 2 * SLOTS; i++) {
        struct slot *slot = &world.slots[i / SLOTS][i % SLOTS];
        struct rc_engine *engine = &world.clients[i / SLOTS].engine;
        if (slot->state == LEADING) {
            rc_engine_drop(engine, &slot->op.op);
            slot->state = IDLE;
        }
    }
    for (int round = 0; round < 30; round++) {
        peer_sleep(&world.server, 1000);
        check_slots();
        for (int i = 0; i < 2 * SLOTS; i++) {
            struct slot *slot = &world.slots[i / SLOTS][i % SLOTS];
            struct rc_engine *engine = &world.clients[i / SLOTS].engine;
            if (slot->state == LEADING)
                rc_engine_drop(engine, &slot->op.op);
            slot->state = slot->state == LEADING ? IDLE : slot->state;
            if (slot->is_lock && slot->state == IDLE)
                rc_locks_drop(&engine->locks, &slot->lock);
        }
    }
    for (int c = 0; c < 2; c++)
        check_nothing_is_left(&world.clients[c].engine);
    for (int name = 0; name < VALUES; name++)
        CHECK(!peer_has_lease(&world.server, value_key(name)));
}

static void open_world(uint64_t seed)
{
    memset(&world, 0, sizeof world);
    world.random = seed;
    peer_init(&world.server);
    for (int c = 0; c < 2; c++)
        peer_open(&world.clients[c], &world.server, NULL);
    for (int i = 0; i < 2 * SLOTS; i++) {
        struct slot *slot = &world.slots[i / SLOTS][i % SLOTS];
        peer_op_init(&slot->op);
        slot->is_lock = i % 3 == 0;
        slot->name = (int)below(slot->is_lock ? NAMES : VALUES);
        CHECK(rc_lock_init(&slot->lock, slot->name == 0 ? "l0" : "l1", 2) == 0);
    }
}

/* With ops under way and leases held; each must hear of it. */
static void close_world(void)
{
    for (int c = 1; c >= 0; c--) {
        peer_close(&world.clients[c]);
        for (int i = 0; i < SLOTS; i++) {
            struct slot *slot = &world.slots[c][i];
            if (slot->state == RUNNING)
                CHECK(slot->op.finished == 1);
            CHECK(!peer_holds(&world.server, &slot->lock));
            peer_op_deinit(&slot->op);
            rc_lock_deinit(&slot->lock);
        }
    }
    CHECK(!world.server.went_round);
    peer_deinit(&world.server);
}

static bool run_seed(uint64_t seed)
{
    int before = atomic_load(&test_failures);
    open_world(seed);
    uint32_t trouble = below(12); /* some histories are calm, some are wild */
    for (int step = 0; step < STEPS && atomic_load(&test_failures) == before; step++) {
        if (below(60) < trouble)
            step_fault();
        else
            step_slot();
        if (below(200) == 0)
            heal();
        peer_sleep(&world.server, below(100) == 0 ? below(5000) : below(4) == 0 ? below(60) : 0);
        check_slots();
        check_server();
    }
    if (atomic_load(&test_failures) == before && seed % 3 != 0)
        wind_down();
    close_world();
    if (atomic_load(&test_failures) != before)
        fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    return atomic_load(&test_failures) == before;
}

static uint64_t first_seed = 1, seed_count = 30;

static void keeps_its_promises_under_random_faults(void)
{
    int64_t outcomes[8] = {0};
    for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) {
        if (!run_seed(seed))
            return;
        for (int i = 0; i < 8; i++)
            outcomes[i] += world.outcomes[i];
    }
    /* A history in which nothing happens would keep every promise. */
    for (int i = 0; i < 7; i++)
        CHECK(outcomes[i] > (int64_t)seed_count);
}

/* engine_test [first seed] [how many] */
int main(int argc, char **argv)
{
    if (argc > 1)
        first_seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        seed_count = strtoull(argv[2], NULL, 10);
    TEST(reads_writes_and_deletes);
    TEST(hands_the_error_of_one_command_to_its_op_alone);
    TEST(cancels_by_tag_what_runs_and_what_leads);
    TEST(touches_nothing_that_was_dropped);
    TEST(tells_how_it_is);
    TEST(closing_twice_and_using_it_afterwards_is_harmless);
    TEST(keeps_its_promises_under_random_faults);
    return test_result();
}
