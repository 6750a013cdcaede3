#include "engine/entry.h"

#include <string.h>

#include "base/sha1.h"

static void put_u16(char *out, uint16_t value)
{
    out[0] = (char)(value & 0xFF);
    out[1] = (char)(value >> 8);
}

static void put_u32(char *out, uint32_t value)
{
    put_u16(out, (uint16_t)(value & 0xFFFF));
    put_u16(out + 2, (uint16_t)(value >> 16));
}

static uint16_t get_u16(const char *in)
{
    return (uint16_t)((uint8_t)in[0] | (uint16_t)(uint8_t)in[1] << 8);
}

static uint32_t get_u32(const char *in)
{
    return (uint32_t)get_u16(in) | (uint32_t)get_u16(in + 2) << 16;
}

void rc_entry_write(char header[RC_ENTRY_SIZE], const rc_entry *entry, const char *nonce)
{
    header[0] = (char)RC_ENTRY_MAGIC;
    header[1] = RC_ENTRY_VERSION;
    header[2] = (char)entry->kind;
    header[3] = (char)entry->codec;
    header[4] = (char)entry->entry_flags;
    header[5] = 0;
    put_u16(header + 6, entry->schema);
    memcpy(header + 8, nonce, RC_NONCE_SIZE);
    put_u32(header + 16, entry->stale_ms);
    put_u32(header + 20, entry->load_ms);
}

void rc_entry_write_kind(char header[RC_ENTRY_SIZE], uint8_t kind, uint8_t flags, const char *nonce)
{
    rc_entry entry = {.kind = kind, .entry_flags = flags};
    rc_entry_write(header, &entry, nonce);
}

static void clear(rc_result *result, uint8_t kind, const char *bytes, size_t len)
{
    result->kind = kind;
    result->codec = 0;
    result->entry_flags = 0;
    result->schema = 0;
    result->stale_ms = 0;
    result->load_ms = 0;
    memset(result->version, 0, sizeof result->version);
    result->data = bytes;
    result->len = len;
}

/* Codec, the byte behind the flags, schema, stale_ms and load_ms are 0. */
static bool is_bare(const char *bytes)
{
    static const char zeros[8];
    return bytes[3] == 0 && memcmp(bytes + 5, zeros, 3) == 0 && memcmp(bytes + 16, zeros, 8) == 0;
}

uint8_t rc_entry_form(const char *bytes, size_t len)
{
    if (len < RC_ENTRY_SIZE || (uint8_t)bytes[0] != RC_ENTRY_MAGIC || bytes[1] != RC_ENTRY_VERSION)
        return 0;
    uint8_t kind = (uint8_t)bytes[2];
    if (kind == RC_KIND_ERROR)
        return is_bare(bytes) ? kind : 0;
    if (kind == RC_KIND_LEASE)
        return len == RC_ENTRY_SIZE && bytes[4] == 0 && is_bare(bytes) ? kind : 0;
    return kind;
}

void rc_entry_read(rc_result *result, const char *bytes, size_t len)
{
    if (bytes == NULL) {
        clear(result, RC_KIND_NONE, NULL, 0);
        return;
    }
    if (len < RC_ENTRY_SIZE || (uint8_t)bytes[0] != RC_ENTRY_MAGIC) {
        clear(result, RC_KIND_PLAIN, bytes, len);
        return;
    }
    uint8_t kind = rc_entry_form(bytes, len);
    if (kind < RC_KIND_VALUE || kind > RC_KIND_LEASE) {
        clear(result, RC_KIND_UNKNOWN, bytes, len);
        return;
    }
    result->kind = kind;
    result->codec = (uint8_t)bytes[3];
    result->entry_flags = (uint8_t)bytes[4];
    result->schema = get_u16(bytes + 6);
    memcpy(result->version, bytes + 8, RC_NONCE_SIZE);
    result->stale_ms = get_u32(bytes + 16);
    result->load_ms = get_u32(bytes + 20);
    result->data = bytes + RC_ENTRY_SIZE;
    result->len = len - RC_ENTRY_SIZE;
}

void rc_entry_read_with_ttl(rc_result *result, const char *bytes, size_t len, int64_t ttl_ms)
{
    rc_entry_read(result, bytes, len);
    result->ttl_ms = ttl_ms;
    if (ttl_ms == -1 && (result->kind == RC_KIND_LEASE || result->kind == RC_KIND_ERROR))
        clear(result, RC_KIND_PLAIN, bytes, len);
}

int64_t rc_entry_deadline(const rc_result *entry, int64_t sent_us)
{
    /* PTTL is the server's clock at the moment of the answer, cut to milliseconds. */
    enum { PTTL_SLACK_US = 1000 };
    if (entry->ttl_ms == -1)
        return INT64_MAX;
    int64_t stale_ms = entry->entry_flags & RC_ENTRY_EXTRA ? 0 : (int64_t)entry->stale_ms;
    if (entry->ttl_ms <= stale_ms) /* the server's number: it may be any */
        return 0;
    int64_t fresh_ms = entry->ttl_ms - stale_ms;
    return fresh_ms < INT64_MAX / 2000 ? sent_us + fresh_ms * 1000 - PTTL_SLACK_US : INT64_MAX;
}

size_t rc_entry_identity(char identity[RC_IDENTITY_SIZE], const char *bytes, size_t len)
{
    char hex[RC_IDENTITY_SIZE + 1];
    if (rc_entry_form(bytes, len) != 0) {
        memcpy(identity, bytes + 8, RC_NONCE_SIZE);
        return RC_NONCE_SIZE;
    }
    rc_sha1_hex(bytes, len, hex);
    memcpy(identity, hex, RC_IDENTITY_SIZE);
    return RC_IDENTITY_SIZE;
}
