#include "driver/tls.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "redcache.h"
#include "test/test.h"

enum {
    PATIENCE_US = 10000000,
    LARGE = 40000, /* more than OpenSSL asks for at once, but for what came from the wire */
    FLOOD = 60000
};

static atomic_bool refuses; /* large blocks of OpenSSL's */

static bool is_refused(size_t size)
{
    return size >= LARGE && atomic_load(&refuses);
}

static void *tls_malloc(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return is_refused(size) ? NULL : malloc(size);
}

static void *tls_realloc(void *block, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return is_refused(size) ? NULL : realloc(block, size);
}

static void tls_free(void *block, const char *file, int line)
{
    (void)file;
    (void)line;
    free(block);
}

static void bytes_without_room_are_an_error_that_has_a_text(void)
{
    static char bytes[FLOOD];
    struct rc_tls_context *context = NULL;
    const struct rc_tls_files files = {NULL, NULL, NULL, NULL};
    enum rc_tls_fault fault;
    const char *why = NULL;
    if (!CHECK(rc_tls_context_new(&context, &files, &fault, &why) == 0))
        return;
    struct rc_tls *tls = rc_tls_new(context, "example.test");
    if (CHECK(tls != NULL)) {
        atomic_store(&refuses, true);
        CHECK(rc_tls_feed(tls, bytes, sizeof bytes) == RC_ERR_NOMEM);
        CHECK(strcmp(rc_tls_error(tls), "TLS: no memory") == 0);
        atomic_store(&refuses, false);
    }
    rc_tls_free(tls);
    rc_tls_context_free(context);
}

static int listen_somewhere(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, 8) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        exit(1);
    *port = ntohs(address.sin_port);
    return fd;
}

/* Greets with more than there is memory for; the bytes themselves would wait for more of them. */
static void flood(int listener)
{
    static char record[FLOOD] = "\x16\x03\x03\x3f\xff";
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        exit(1);
    ssize_t n = send(fd, record, sizeof record, MSG_NOSIGNAL);
    (void)n;
    close(fd);
}

static void a_line_without_memory_says_so(void)
{
    int port;
    int listener = listen_somewhere(&port);
    char url[64];
    rc_health health = {.ready = 0};
    rc_client *client = NULL;
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d", port);
    rc_options options = {.url = url, .url_len = strlen(url), .command_timeout_ms = 5000};
    if (!CHECK(rc_open(&options, &client, NULL) == 0))
        exit(1);
    rc_op *op = rc_op_new(client);
    if (!CHECK(op != NULL && rc_get(op, "key", 3, 0) == 0))
        exit(1);
    (void)rc_done(op); /* which has it connected */
    atomic_store(&refuses, true);
    flood(listener);
    int64_t until_us = rc_clock_us() + PATIENCE_US;
    do {
        (void)rc_done(op);
        rc_get_health(client, &health);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    } while (health.cause[0] == '\0' && rc_clock_us() < until_us);
    if (!CHECK(strstr(health.cause, "no memory") != NULL))
        fprintf(stderr, "the cause is '%s'\n", health.cause);
    atomic_store(&refuses, false);
    close(listener);
    rc_op_free(op);
    rc_unref(client, 0);
}

int main(void)
{
    if (CRYPTO_set_mem_functions(tls_malloc, tls_realloc, tls_free) != 1)
        return 1;
    TEST(bytes_without_room_are_an_error_that_has_a_text);
    TEST(a_line_without_memory_says_so);
    return test_result();
}
