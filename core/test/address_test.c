#include "base/address.h"

#include <stdlib.h>
#include <string.h>

#include "redcache.h"
#include "test/test.h"

static struct rc_address address;
static const char *why;

static bool parse(const char *url)
{
    /* A copy of its own, so that a byte behind it is noticed. */
    size_t len = strlen(url);
    char *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, url, len);
    int error = rc_address_parse(&address, copy, len, &why);
    free(copy);
    CHECK(error == 0 || (error == RC_ERR_ARGUMENT && why != NULL));
    return error == 0;
}

static bool is_tcp(const char *url, const char *host, unsigned port, int db)
{
    return parse(url) && !address.is_unix && strcmp(address.host, host) == 0 &&
           address.port == port && address.db == db;
}

static void reads_host_port_and_database(void)
{
    CHECK(is_tcp("redis://h", "h", 6379, 0));
    CHECK(is_tcp("redis://example.org:7000", "example.org", 7000, 0));
    CHECK(is_tcp("redis://127.0.0.1:65535/15", "127.0.0.1", 65535, 15));
    CHECK(strcmp(address.label, "127.0.0.1:65535/15") == 0);
    CHECK(strcmp(address.server, "127.0.0.1 65535/15") == 0);
    CHECK(is_tcp("redis://h/", "h", 6379, 0));
    CHECK(is_tcp("redis://[::1]", "::1", 6379, 0));
    CHECK(is_tcp("redis://[fe80::1]:7/3", "fe80::1", 7, 3));
    CHECK(!address.has_password && !address.has_user && !address.is_tls);
    CHECK(is_tcp("rediss://h:7", "h", 7, 0) && address.is_tls);
}

static void reads_user_and_password(void)
{
    CHECK(is_tcp("redis://me:secret@h", "h", 6379, 0));
    CHECK(address.has_user && strcmp(address.user, "me") == 0 && address.user_len == 2);
    CHECK(address.has_password && strcmp(address.password, "secret") == 0);
    CHECK(is_tcp("redis://:p@h", "h", 6379, 0) && !address.has_user && address.has_password);
    CHECK(is_tcp("redis://:@h", "h", 6379, 0) && address.password_len == 0);
    CHECK(is_tcp("redis://:a@b:c/%2F%00%@h", "h", 6379, 0) == false); /* '%' needs two digits */
    CHECK(is_tcp("redis://:a@b:c%2f%00@h", "h", 6379, 0));
    CHECK(address.password_len == 7 && memcmp(address.password, "a@b:c/\0", 7) == 0);
    CHECK(strstr(address.label, "a@b") == NULL);
}

static bool is_set(const char *url, const char *server, int db)
{
    return parse(url) && address.sentinel_count > 0 && address.db == db &&
           strcmp(address.server, server) == 0;
}

static void reads_the_sentinels_of_a_set_in_any_order(void)
{
    struct rc_address sentinel;
    CHECK(is_set("redis+sentinel://s1:26379,s2,s3/mymaster",
                 "s1 26379,s2 26379,s3 26379 mymaster/0", 0));
    CHECK(address.sentinel_count == 3 && strcmp(address.master, "mymaster") == 0);
    CHECK(!address.is_tls && !address.is_unix && strcmp(address.label, "mymaster/0") == 0);
    CHECK(
        is_set("redis+sentinel://s3,s1,s2/mymaster/", "s1 26379,s2 26379,s3 26379 mymaster/0", 0));
    CHECK(is_set("redis+sentinel://[::1]:7,h/m.1_-/9", "::1 7,h 26379 m.1_-/9", 9));
    rc_address_sentinel(&sentinel, &address, 0);
    CHECK(strcmp(sentinel.host, "::1") == 0 && sentinel.port == 7 && !sentinel.has_password);
    CHECK(strcmp(sentinel.label, "::1:7") == 0);
    rc_address_sentinel(&sentinel, &address, 1);
    CHECK(strcmp(sentinel.host, "h") == 0 && sentinel.port == 26379 && !sentinel.is_tls);
    CHECK(is_set("rediss+sentinel://h/m", "h 26379 m/0", 0) && address.is_tls);
    rc_address_sentinel(&sentinel, &address, 0);
    CHECK(sentinel.is_tls);
}

static void keeps_the_logins_of_master_and_sentinels_apart(void)
{
    struct rc_address sentinel, master;
    char long_word[600];
    memset(long_word, 'x', sizeof long_word);
    CHECK(is_set("redis+sentinel://me:secret@h/m/2", "h 26379 m/2", 2));
    CHECK(rc_address_log_in_at_sentinels(&address, "them", 4, "other", 5));
    rc_address_sentinel(&sentinel, &address, 0);
    CHECK(strcmp(sentinel.user, "them") == 0 && strcmp(sentinel.password, "other") == 0);
    CHECK(sentinel.has_user && sentinel.has_password);
    CHECK(rc_address_elsewhere(&master, &address, "10.0.0.1", 7001));
    CHECK(strcmp(master.user, "me") == 0 && strcmp(master.password, "secret") == 0);
    CHECK(strcmp(master.label, "10.0.0.1:7001/2") == 0 && master.port == 7001 && master.db == 2);
    CHECK(!rc_address_log_in_at_sentinels(&address, long_word, 128, "", 0));
    CHECK(!rc_address_log_in_at_sentinels(&address, "", 0, long_word, 512));
}

static void refuses_sets_that_are_none(void)
{
    char url[2048] = "redis+sentinel://";
    CHECK(!parse("redis+sentinel://h") && strstr(why, "the master's name is missing") != NULL);
    CHECK(!parse("redis+sentinel://h/") && strstr(why, "1 to 100 letters") != NULL);
    CHECK(!parse("redis+sentinel://h/my master"));
    CHECK(!parse("redis+sentinel:///m") && strstr(why, "host name") != NULL);
    CHECK(!parse("redis+sentinel://h,/m") && strstr(why, "host name") != NULL);
    CHECK(!parse("redis+sentinel://h:0/m") && strstr(why, "port") != NULL);
    CHECK(!parse("redis+sentinel://h/m/x") && strstr(why, "database") != NULL);
    CHECK(!parse("redis+sentinel://h/m?db=1") && strstr(why, "'?'") != NULL);
    CHECK(!parse("redis+sentinel://h,i,h:26379/m") && strstr(why, "twice") != NULL);
    CHECK(!parse("redis+sentinel://secret@h/m") && strstr(why, "user:password") != NULL);
    for (int i = 0; i < 15; i++)
        sprintf(url + strlen(url), "%sh%d", i > 0 ? "," : "", i);
    strcat(url, "/m");
    CHECK(parse(url) && address.sentinel_count == 15);
    strcpy(url + strlen(url) - 2, ",more/m");
    CHECK(!parse(url) && strstr(why, "15") != NULL);
    strcpy(url, "redis+sentinel://");
    for (int i = 0; i < 6; i++)
        sprintf(url + strlen(url), "%s%0200d", i > 0 ? "," : "", i);
    strcat(url, "/m");
    CHECK(!parse(url) && strstr(why, "too long") != NULL);
}

static bool is_list(const char *url, uint32_t count, const char *server)
{
    return parse(url) && address.node_count == count && strcmp(address.server, server) == 0 &&
           address.host[0] == '\0' && address.port == 0 && address.sentinel_count == 0;
}

static void reads_the_nodes_of_a_cluster_in_any_order(void)
{
    struct rc_address node;
    CHECK(is_list("redis://h2:7001,h1:7000", 2, "h1 7000,h2 7001/0"));
    CHECK(strcmp(address.label, "h1 and 1 more/0") == 0 && !address.is_tls);
    CHECK(is_list("redis://h1:7000,h2:7001/", 2, "h1 7000,h2 7001/0"));
    CHECK(is_list("rediss://me:a,b@[::1]:7,h,[fe80::2]/3", 3, "::1 7,fe80::2 6379,h 6379/3"));
    CHECK(address.is_tls && address.db == 3 && strcmp(address.password, "a,b") == 0);
    rc_address_listed(&node, &address, 0);
    CHECK(strcmp(node.host, "::1") == 0 && node.port == 7 && node.is_tls && node.node_count == 3);
    CHECK(strcmp(node.user, "me") == 0 && node.has_password && node.db == 3);
    CHECK(strcmp(node.label, "::1:7/3") == 0 && strcmp(node.server, "::1 7/3") == 0);
    rc_address_listed(&node, &address, 2);
    CHECK(strcmp(node.host, "h") == 0 && node.port == 6379);
    CHECK(parse("redis://h") && address.node_count == 0);
}

static void refuses_lists_that_are_none(void)
{
    char url[4096] = "redis://";
    CHECK(!parse("redis://h,") && strstr(why, "host name") != NULL);
    CHECK(!parse("redis://,h") && strstr(why, "host name") != NULL);
    CHECK(!parse("redis://h:1,h:0") && strstr(why, "port") != NULL);
    CHECK(!parse("redis://h, i") && strstr(why, "blank") != NULL);
    CHECK(!parse("redis://h,i,h:6379") && strstr(why, "twice") != NULL);
    CHECK(!parse("redis://h,i/x") && strstr(why, "database") != NULL);
    CHECK(!parse("redis://h/0,i/0") && strstr(why, "database") != NULL);
    CHECK(!parse("redis://h,redis://i") && strstr(why, "stands once") != NULL);
    CHECK(!parse("redis://h,i?db=1") && strstr(why, "'?'") != NULL);
    CHECK(!parse("redis://me@h,i") && strstr(why, "user:password") != NULL);
    for (int i = 0; i < 15; i++)
        sprintf(url + strlen(url), "%sh%d", i > 0 ? "," : "", i);
    CHECK(parse(url) && address.node_count == 15);
    strcat(url, ",more");
    CHECK(!parse(url) && strstr(why, "15") != NULL);
    strcpy(url, "redis://");
    for (int i = 0; i < 6; i++)
        sprintf(url + strlen(url), "%s%0200d", i > 0 ? "," : "", i);
    CHECK(!parse(url) && strstr(why, "too long") != NULL);
}

static void reads_the_name_of_a_store(void)
{
    CHECK(parse("memory://") && address.is_memory && strcmp(address.host, "") == 0);
    CHECK(strcmp(address.label, "memory://") == 0);
    CHECK(parse("memory://My.store-1_") && strcmp(address.host, "My.store-1_") == 0);
    CHECK(strcmp(address.label, "memory://My.store-1_") == 0);
    CHECK(!address.is_unix && !address.is_tls && !address.has_password && address.db == 0);
    CHECK(!parse("memory:/"));
    CHECK(!parse("memory://a/b"));
    CHECK(!parse("memory://:secret@a"));
    CHECK(strstr(why, "secret") == NULL);
    CHECK(!parse("memory://a b"));
    char url[120] = "memory://";
    memset(url + 9, 'n', 100);
    CHECK(parse(url) && strlen(address.host) == 100);
    url[109] = 'n';
    CHECK(!parse(url));
}

static void reads_the_path_of_a_socket(void)
{
    CHECK(parse("unix:///run/redis.sock") && address.is_unix);
    CHECK(strcmp(address.host, "/run/redis.sock") == 0 && address.db == 0);
    CHECK(parse("unix://:pw@/run/re%20dis.sock?db=3"));
    CHECK(strcmp(address.host, "/run/re dis.sock") == 0 && address.db == 3);
    CHECK(strcmp(address.password, "pw") == 0);
}

static void refuses_what_it_can_not_mean(void)
{
    static const char *const bad[] = {"",
                                      "redis",
                                      "redis://",
                                      "http://h",
                                      "redis:/h",
                                      "redis://:6379",
                                      "redis://h:0",
                                      "redis://h:65536",
                                      "redis://h:99999999999",
                                      "redis://h:",
                                      "redis://h:x",
                                      "redis://::1",
                                      "redis://[::1",
                                      "redis://[::1]x:5",
                                      "redis://[]",
                                      "redis://h/x",
                                      "redis://h/-1",
                                      "redis://h/0/1",
                                      "redis://h/99999999",
                                      "redis://me@h",
                                      "redis://me:%zz@h",
                                      "redis://me:%4@h",
                                      "unix://",
                                      "unix://relative",
                                      "unix:///s?db=",
                                      "unix:///s?x=1",
                                      "unix:///s%00t"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!CHECK(!parse(bad[i])))
            fprintf(stderr, "%s\n", bad[i]);
    }
}

static void refuses_what_is_too_long(void)
{
    char url[2000] = "redis://";
    memset(url + 8, 'a', 255);
    CHECK(parse(url));
    memset(url + 8, 'a', 256);
    CHECK(!parse(url));
    strcpy(url, "redis://:");
    memset(url + 9, 'p', 511);
    strcpy(url + 9 + 511, "@h");
    CHECK(parse(url) && address.password_len == 511);
    memset(url + 9, 'p', 512);
    strcpy(url + 9 + 512, "@h");
    CHECK(!parse(url));
    strcpy(url, "unix:///");
    memset(url + 8, 'a', 107);
    url[8 + 107] = '\0';
    CHECK(!parse(url));
    url[8 + 106] = '\0';
    CHECK(parse(url));
}

static void stands_any_bytes(void)
{
    static const char *const parts[] = {
        "redis://", "unix://", "rediss://", ":",    "@",  "memory://", "/", "[",
        "]",        "%",       "41",        "?db=", "\0", "h",         "1", ","};
    uint64_t random = 5;
    for (int round = 0; round < 20000; round++) {
        char url[200];
        size_t len = 0;
        for (uint32_t i = test_below(&random, 10); i > 0; i--) {
            const char *part = parts[test_below(&random, sizeof parts / sizeof *parts)];
            size_t part_len = *part == '\0' ? 1 : strlen(part);
            memcpy(url + len, part, part_len);
            len += part_len;
        }
        char *copy = malloc(len > 0 ? len : 1);
        memcpy(copy, url, len);
        int error = rc_address_parse(&address, copy, len, &why);
        free(copy);
        if (error == 0)
            CHECK(strlen(address.label) > 0 &&
                  (address.is_memory || address.sentinel_count > 0 || address.node_count > 0 ||
                   strlen(address.host) > 0));
    }
}

int main(void)
{
    TEST(reads_host_port_and_database);
    TEST(reads_user_and_password);
    TEST(reads_the_sentinels_of_a_set_in_any_order);
    TEST(keeps_the_logins_of_master_and_sentinels_apart);
    TEST(refuses_sets_that_are_none);
    TEST(reads_the_nodes_of_a_cluster_in_any_order);
    TEST(refuses_lists_that_are_none);
    TEST(reads_the_name_of_a_store);
    TEST(reads_the_path_of_a_socket);
    TEST(refuses_what_it_can_not_mean);
    TEST(refuses_what_is_too_long);
    TEST(stands_any_bytes);
    return test_result();
}
