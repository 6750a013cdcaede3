#include "engine/slot_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/test.h"

struct bed {
    struct rc_resp resp;
    struct rc_slot_map map;
};

static void open_bed(struct bed *bed)
{
    if (rc_resp_init(&bed->resp, 1 << 20, 1 << 20) != 0)
        exit(1);
    rc_slot_map_init(&bed->map);
}

static void close_bed(struct bed *bed)
{
    rc_slot_map_deinit(&bed->map);
    rc_resp_deinit(&bed->resp);
}

static int read_map(struct bed *bed, const char *answer)
{
    enum rc_message message = RC_MESSAGE_NONE;
    if (rc_resp_feed(&bed->resp, answer, strlen(answer)) != 0 ||
        rc_resp_next(&bed->resp, &message) != 0 || message != RC_MESSAGE_REPLY)
        exit(1);
    rc_reply_resolve(&bed->resp.reply);
    int error = rc_slot_map_read(&bed->map, &bed->resp.reply, 0);
    rc_reply_clear(&bed->resp.reply);
    if (error == RC_ERR_NOMEM)
        exit(1);
    return error;
}

#define ID_A "$40\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"
#define ID_B "$40\r\nbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n"
#define A    "*4\r\n$9\r\n127.0.0.1\r\n:7000\r\n" ID_A "*0\r\n"
#define B    "*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n" ID_B "*2\r\n$8\r\nhostname\r\n$1\r\nb\r\n"

static bool owns(const struct bed *bed, uint32_t slot, uint16_t port)
{
    uint16_t owner = bed->map.owner[slot];
    return owner != RC_SLOT_NOBODY && bed->map.servers[owner].port == port;
}

static void reads_masters_ranges_and_replicas(void)
{
    struct bed bed;
    open_bed(&bed);
    CHECK(read_map(&bed, "*3\r\n*4\r\n:0\r\n:99\r\n" A B "*3\r\n:200\r\n:16383\r\n" A
                         "*3\r\n:100\r\n:100\r\n*3\r\n$2\r\nxy\r\n:7002\r\n" ID_B) == 0);
    CHECK(bed.map.count == 3 && bed.map.covered == 100 + 16184 + 1);
    CHECK(owns(&bed, 0, 7000) && owns(&bed, 99, 7000) && owns(&bed, 100, 7002));
    CHECK(bed.map.owner[101] == RC_SLOT_NOBODY && bed.map.owner[199] == RC_SLOT_NOBODY);
    CHECK(owns(&bed, 200, 7000) && owns(&bed, 16383, 7000));
    CHECK(bed.map.servers[1].port == 7001 && bed.map.servers[1].master == 0);
    CHECK(bed.map.servers[0].id[0] == 'a' && strlen(bed.map.servers[0].id) == 40);
    CHECK(strcmp(bed.map.servers[2].host, "xy") == 0 && bed.map.servers[2].master == 2);
    close_bed(&bed);
}

static void a_host_that_is_not_known_is_the_one_that_was_asked(void)
{
    static const char *const HOSTS[] = {"_\r\n", "$0\r\n\r\n", "$1\r\n?\r\n"};
    for (size_t i = 0; i < sizeof HOSTS / sizeof *HOSTS; i++) {
        struct bed bed;
        char answer[200];
        open_bed(&bed);
        snprintf(answer, sizeof answer, "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n%s:7000\r\n%s", HOSTS[i],
                 ID_A);
        CHECK(read_map(&bed, answer) == 0);
        CHECK(bed.map.count == 1 && bed.map.servers[0].host[0] == '\0' && bed.map.covered == 16384);
        close_bed(&bed);
    }
}

static void the_newest_map_takes_the_place_of_the_last(void)
{
    struct bed bed;
    open_bed(&bed);
    CHECK(read_map(&bed, "*1\r\n*3\r\n:0\r\n:16383\r\n" A) == 0);
    CHECK(read_map(&bed, "*1\r\n*3\r\n:5\r\n:6\r\n" B) == 0);
    CHECK(bed.map.count == 1 && bed.map.covered == 2 && owns(&bed, 5, 7001));
    CHECK(bed.map.owner[4] == RC_SLOT_NOBODY);
    CHECK(read_map(&bed, "*0\r\n") == 0); /* a node that knows of no slot */
    CHECK(bed.map.count == 0 && bed.map.covered == 0 && bed.map.owner[5] == RC_SLOT_NOBODY);
    close_bed(&bed);
}

static void what_has_another_form_gives_an_empty_map(void)
{
    static const char *const ANSWERS[] = {
        "-ERR This instance has cluster support disabled\r\n",
        "+OK\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:1\r\n:0\r\n" A,
        "*1\r\n*3\r\n:-1\r\n:0\r\n" A,
        "*1\r\n*3\r\n:0\r\n:16384\r\n" A,
        "*1\r\n*3\r\n:0\r\n$1\r\n1\r\n" A,
        "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*0\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:0\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:65536\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n:1\r\n:7000\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n$1\r\na\r\n:7000\r\n$41\r\n"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        "*2\r\n*3\r\n:0\r\n:1\r\n" A "*1\r\n:2\r\n",
    };
    for (size_t i = 0; i < sizeof ANSWERS / sizeof *ANSWERS; i++) {
        struct bed bed;
        open_bed(&bed);
        CHECK(read_map(&bed, "*1\r\n*3\r\n:0\r\n:16383\r\n" A) == 0);
        CHECK(read_map(&bed, ANSWERS[i]) == RC_ERR_PROTOCOL);
        CHECK(bed.map.count == 0 && bed.map.covered == 0);
        CHECK(bed.map.owner[0] == RC_SLOT_NOBODY);
        close_bed(&bed);
    }
}

int main(void)
{
    TEST(reads_masters_ranges_and_replicas);
    TEST(a_host_that_is_not_known_is_the_one_that_was_asked);
    TEST(the_newest_map_takes_the_place_of_the_last);
    TEST(what_has_another_form_gives_an_empty_map);
    return test_result();
}
