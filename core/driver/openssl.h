/*
 * openssl - OpenSSL, loaded by the first that wants TLS: a process without it maps neither library.
 *
 * What:    the calls of tls.c by their own names, each through a table. Loading and initialising
 *          libssl and libcrypto takes longer than all the rest of a start, and most have no use for
 *          them. A host that has loaded them already shares its own: the name is the same.
 * Threads: any.
 * Memory:  the libraries stay loaded.
 * Errors:  RC_ERR_UNAVAILABLE: they are not installed, or another version is.
 * Not:     no call before rc_openssl_load has returned 0.
 */
#ifndef RC_OPENSSL_H
#define RC_OPENSSL_H

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* The file that is loaded: of the version whose headers this was compiled with. */
#if OPENSSL_VERSION_NUMBER < 0x30000000L
#define RC_OPENSSL_VERSION "1.1"
#else
#define RC_OPENSSL_VERSION "3"
#endif
#ifdef __APPLE__
#define RC_OPENSSL_FILE "libssl." RC_OPENSSL_VERSION ".dylib"
#else
#define RC_OPENSSL_FILE "libssl.so." RC_OPENSSL_VERSION
#endif

/* A call of tls.c that stands in the first list and not in the second does not link. */
#define RC_OPENSSL_EACH(CALL)                                                                      \
    CALL(BIO_ctrl)                                                                                 \
    CALL(BIO_ctrl_pending)                                                                         \
    CALL(BIO_free)                                                                                 \
    CALL(BIO_new)                                                                                  \
    CALL(BIO_read)                                                                                 \
    CALL(BIO_s_mem)                                                                                \
    CALL(BIO_write)                                                                                \
    CALL(ERR_clear_error)                                                                          \
    CALL(ERR_peek_error)                                                                           \
    CALL(ERR_reason_error_string)                                                                  \
    CALL(SSL_CTX_check_private_key)                                                                \
    CALL(SSL_CTX_ctrl)                                                                             \
    CALL(SSL_CTX_free)                                                                             \
    CALL(SSL_CTX_load_verify_locations)                                                            \
    CALL(SSL_CTX_new)                                                                              \
    CALL(SSL_CTX_set_default_passwd_cb)                                                            \
    CALL(SSL_CTX_set_default_verify_paths)                                                         \
    CALL(SSL_CTX_set_verify)                                                                       \
    CALL(SSL_CTX_use_PrivateKey_file)                                                              \
    CALL(SSL_CTX_use_certificate_chain_file)                                                       \
    CALL(SSL_ctrl)                                                                                 \
    CALL(SSL_free)                                                                                 \
    CALL(SSL_get0_param)                                                                           \
    CALL(SSL_get_error)                                                                            \
    CALL(SSL_get_verify_result)                                                                    \
    CALL(SSL_new)                                                                                  \
    CALL(SSL_read)                                                                                 \
    CALL(SSL_set1_host)                                                                            \
    CALL(SSL_set_bio)                                                                              \
    CALL(SSL_set_connect_state)                                                                    \
    CALL(SSL_write)                                                                                \
    CALL(TLS_client_method)                                                                        \
    CALL(X509_VERIFY_PARAM_set1_ip_asc)                                                            \
    CALL(X509_verify_cert_error_string)

#define RC_OPENSSL_POINTER(name) __typeof__(name) *name##_call;

struct rc_openssl {
    RC_OPENSSL_EACH(RC_OPENSSL_POINTER)
};

/* Fixed after rc_openssl_load has returned 0. */
extern struct rc_openssl rc_openssl;

/* `why`: a static text. Tried once in a process. */
int rc_openssl_load(const char **why);

#define BIO_ctrl                           rc_openssl.BIO_ctrl_call
#define BIO_ctrl_pending                   rc_openssl.BIO_ctrl_pending_call
#define BIO_free                           rc_openssl.BIO_free_call
#define BIO_new                            rc_openssl.BIO_new_call
#define BIO_read                           rc_openssl.BIO_read_call
#define BIO_s_mem                          rc_openssl.BIO_s_mem_call
#define BIO_write                          rc_openssl.BIO_write_call
#define ERR_clear_error                    rc_openssl.ERR_clear_error_call
#define ERR_peek_error                     rc_openssl.ERR_peek_error_call
#define ERR_reason_error_string            rc_openssl.ERR_reason_error_string_call
#define SSL_CTX_check_private_key          rc_openssl.SSL_CTX_check_private_key_call
#define SSL_CTX_ctrl                       rc_openssl.SSL_CTX_ctrl_call
#define SSL_CTX_free                       rc_openssl.SSL_CTX_free_call
#define SSL_CTX_load_verify_locations      rc_openssl.SSL_CTX_load_verify_locations_call
#define SSL_CTX_new                        rc_openssl.SSL_CTX_new_call
#define SSL_CTX_set_default_passwd_cb      rc_openssl.SSL_CTX_set_default_passwd_cb_call
#define SSL_CTX_set_default_verify_paths   rc_openssl.SSL_CTX_set_default_verify_paths_call
#define SSL_CTX_set_verify                 rc_openssl.SSL_CTX_set_verify_call
#define SSL_CTX_use_PrivateKey_file        rc_openssl.SSL_CTX_use_PrivateKey_file_call
#define SSL_CTX_use_certificate_chain_file rc_openssl.SSL_CTX_use_certificate_chain_file_call
#define SSL_ctrl                           rc_openssl.SSL_ctrl_call
#define SSL_free                           rc_openssl.SSL_free_call
#define SSL_get0_param                     rc_openssl.SSL_get0_param_call
#define SSL_get_error                      rc_openssl.SSL_get_error_call
#define SSL_get_verify_result              rc_openssl.SSL_get_verify_result_call
#define SSL_new                            rc_openssl.SSL_new_call
#define SSL_read                           rc_openssl.SSL_read_call
#define SSL_set1_host                      rc_openssl.SSL_set1_host_call
#define SSL_set_bio                        rc_openssl.SSL_set_bio_call
#define SSL_set_connect_state              rc_openssl.SSL_set_connect_state_call
#define SSL_write                          rc_openssl.SSL_write_call
#define TLS_client_method                  rc_openssl.TLS_client_method_call
#define X509_VERIFY_PARAM_set1_ip_asc      rc_openssl.X509_VERIFY_PARAM_set1_ip_asc_call
#define X509_verify_cert_error_string      rc_openssl.X509_verify_cert_error_string_call

#endif
