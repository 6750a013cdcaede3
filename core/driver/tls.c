#include "driver/tls.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/openssl.h"
#include "redcache.h"

enum { OUTPUT_ENOUGH = 256 * 1024 }; /* encrypted and not yet sent: the rest waits in the link */

struct rc_tls_context {
    SSL_CTX *openssl;
    char *name; /* NULL: the host's */
};

struct rc_tls {
    SSL *openssl;
    BIO *from_wire; /* both belong to `openssl` */
    BIO *to_wire;
    struct rc_buf output;
    char error[160];
};

/* OpenSSL would ask at the terminal. */
static int no_passphrase(char *room, int size, int is_writing, void *argument)
{
    (void)room;
    (void)size;
    (void)is_writing;
    (void)argument;
    return 0;
}

static enum rc_tls_fault read_files(SSL_CTX *openssl, const struct rc_tls_files *files,
                                    const char **why)
{
    int found = files->ca != NULL ? SSL_CTX_load_verify_locations(openssl, files->ca, NULL)
                                  : SSL_CTX_set_default_verify_paths(openssl);
    *why = "the file with the CA certificates cannot be read";
    if (found != 1)
        return RC_TLS_BAD_CA;
    if (files->cert == NULL)
        return RC_TLS_NO_FAULT;
    *why = "the file holds no certificate that can be read (PEM)";
    if (SSL_CTX_use_certificate_chain_file(openssl, files->cert) != 1)
        return RC_TLS_BAD_CERT;
    SSL_CTX_set_default_passwd_cb(openssl, no_passphrase);
    *why = "the file holds no key without a passphrase that can be read (PEM), or not the one of "
           "the certificate";
    if (SSL_CTX_use_PrivateKey_file(openssl, files->key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(openssl) != 1)
        return RC_TLS_BAD_KEY;
    return RC_TLS_NO_FAULT;
}

int rc_tls_context_new(struct rc_tls_context **result, const struct rc_tls_files *files,
                       enum rc_tls_fault *fault, const char **why)
{
    *fault = RC_TLS_NO_LIBRARY;
    if (rc_openssl_load(why) != 0)
        return RC_ERR_ARGUMENT;
    struct rc_tls_context *context = calloc(1, sizeof *context);
    *why = "no memory";
    *fault = RC_TLS_NO_FAULT;
    if (context == NULL)
        return RC_ERR_NOMEM;
    context->openssl = SSL_CTX_new(TLS_client_method());
    context->name = files->name != NULL ? strdup(files->name) : NULL;
    if (context->openssl == NULL || (context->name == NULL && files->name != NULL)) {
        rc_tls_context_free(context);
        return RC_ERR_NOMEM;
    }
    SSL_CTX_set_min_proto_version(context->openssl, TLS1_2_VERSION);
    SSL_CTX_set_verify(context->openssl, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context->openssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS |
                                           SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    *fault = read_files(context->openssl, files, why);
    ERR_clear_error();
    if (*fault != RC_TLS_NO_FAULT) {
        rc_tls_context_free(context);
        return RC_ERR_ARGUMENT;
    }
    *result = context;
    return 0;
}

void rc_tls_context_free(struct rc_tls_context *context)
{
    if (context == NULL)
        return;
    SSL_CTX_free(context->openssl);
    free(context->name);
    free(context);
}

/* The name the certificate must carry; an address is no name for SNI. */
static int expect_host(SSL *openssl, const char *host)
{
    struct in6_addr address;
    if (inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(openssl), host);
    return SSL_set_tlsext_host_name(openssl, host) == 1 && SSL_set1_host(openssl, host) == 1;
}

struct rc_tls *rc_tls_new(struct rc_tls_context *context, const char *host)
{
    struct rc_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return NULL;
    rc_buf_init(&tls->output);
    tls->openssl = SSL_new(context->openssl);
    tls->from_wire = BIO_new(BIO_s_mem());
    tls->to_wire = BIO_new(BIO_s_mem());
    if (tls->openssl == NULL || tls->from_wire == NULL || tls->to_wire == NULL)
        goto fail;
    BIO_set_mem_eof_return(tls->from_wire, -1);
    SSL_set_bio(tls->openssl, tls->from_wire, tls->to_wire);
    SSL_set_connect_state(tls->openssl);
    if (expect_host(tls->openssl, context->name != NULL ? context->name : host) == 1)
        return tls;
    rc_tls_free(tls);
    return NULL;

fail:
    BIO_free(tls->from_wire);
    BIO_free(tls->to_wire);
    SSL_free(tls->openssl);
    free(tls);
    return NULL;
}

void rc_tls_free(struct rc_tls *tls)
{
    if (tls == NULL)
        return;
    SSL_free(tls->openssl);
    rc_buf_deinit(&tls->output);
    free(tls);
}

static int note_error(struct rc_tls *tls)
{
    long verify = SSL_get_verify_result(tls->openssl);
    const char *reason = verify != X509_V_OK ? X509_verify_cert_error_string(verify)
                                             : ERR_reason_error_string(ERR_peek_error());
    if (verify == X509_V_OK && ERR_GET_REASON(ERR_peek_error()) == SSL_R_WRONG_VERSION_NUMBER)
        reason = "the answer is no TLS, the port may be one without it (redis://)";
    snprintf(tls->error, sizeof tls->error, "TLS: %s",
             reason != NULL ? reason : "closed by the server");
    ERR_clear_error();
    return RC_ERR_UNAVAILABLE;
}

static int note_no_memory(struct rc_tls *tls)
{
    snprintf(tls->error, sizeof tls->error, "TLS: no memory");
    return RC_ERR_NOMEM;
}

/* What OpenSSL wants to send, into our own buffer. */
static int collect(struct rc_tls *tls)
{
    size_t len = (size_t)BIO_ctrl_pending(tls->to_wire);
    if (len == 0)
        return 0;
    if (rc_buf_reserve(&tls->output, len) != 0)
        return note_no_memory(tls);
    int n = BIO_read(tls->to_wire, tls->output.bytes + tls->output.end, (int)len);
    if (n > 0)
        tls->output.end += (size_t)n;
    return 0;
}

/* 0: OpenSSL only waits for more bytes from the wire. */
static int check(struct rc_tls *tls, int answer)
{
    int error = SSL_get_error(tls->openssl, answer);
    int result =
        error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : note_error(tls);
    return collect(tls) == 0 ? result : RC_ERR_NOMEM; /* an alert is worth sending, too */
}

long rc_tls_write(struct rc_tls *tls, const char *bytes, size_t len)
{
    if (rc_buf_len(&tls->output) >= OUTPUT_ENOUGH)
        return 0;
    ERR_clear_error();
    int n = SSL_write(tls->openssl, bytes, len < OUTPUT_ENOUGH ? (int)len : OUTPUT_ENOUGH);
    if (n <= 0)
        return check(tls, n);
    return collect(tls) == 0 ? n : RC_ERR_NOMEM;
}

struct rc_buf *rc_tls_output(struct rc_tls *tls)
{
    return &tls->output;
}

int rc_tls_feed(struct rc_tls *tls, const char *bytes, size_t len)
{
    return BIO_write(tls->from_wire, bytes, (int)len) == (int)len ? 0 : note_no_memory(tls);
}

long rc_tls_read(struct rc_tls *tls, char *bytes, size_t room)
{
    ERR_clear_error();
    int n = SSL_read(tls->openssl, bytes, (int)room);
    if (n <= 0)
        return check(tls, n);
    return collect(tls) == 0 ? n : RC_ERR_NOMEM;
}

const char *rc_tls_error(const struct rc_tls *tls)
{
    return tls->error;
}
