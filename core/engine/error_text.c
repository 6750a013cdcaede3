#include "engine/error_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Texts of Redis 6 to 8, Valkey 8 and 9, and the embedded store. "*" stands for anything and is
   told as "?"; "@" for a command, told where it is one of ours. The first that fits counts. */
static const char *const FORMS[] = {
    "ASK",
    "BUSY * is busy running a script. You can only call *",
    "BUSY",
    "CLUSTERDOWN Hash slot not served",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "CROSSSLOT",
    "DENIED * is running in protected mode because *",
    "DENIED",
    "ERR ACL failure in script: User * has no permissions to run the '@' command",
    "ERR ACL failure in script: No permissions to access a key",
    "ERR ACL failure in script: *",
    "ERR AUTH <password> called without any password configured for the default user. *",
    "ERR Client sent AUTH, but no password is set*",
    "ERR DB index is out of range",
    "ERR Error compiling script*",
    "ERR Error running script*",
    "ERR Lua redis lib command arguments must be strings or integers",
    "ERR Protocol error: invalid bulk length",
    "ERR Protocol error: invalid multibulk length",
    "ERR Protocol error: too big bulk count string",
    "ERR Protocol error: too big inline request",
    "ERR Protocol error: unauthenticated *",
    "ERR Protocol error*",
    "ERR SELECT is not allowed in cluster mode",
    "ERR The user executing the script can't access at least one of the keys *",
    "ERR The user executing the script can't run this command or subcommand",
    "ERR This Redis command is not allowed from script",
    "ERR This Redis instance is not configured to use an ACL file*",
    "ERR This instance has cluster support disabled",
    "ERR Unknown Redis command called from script",
    "ERR Unknown subcommand or wrong number of arguments for '*'. Try * HELP.",
    "ERR Write commands are not allowed from read-only scripts.",
    "ERR Wrong number of args calling Redis command from script",
    "ERR increment or decrement would overflow",
    "ERR index out of range",
    "ERR invalid DB index",
    "ERR invalid expire time in '@' command",
    "ERR invalid expire time in @",
    "ERR max number of clients reached",
    "ERR max number of clients + cluster connections reached",
    "ERR memory:// has no such command: give redcache.new the url of a server",
    "ERR memory:// runs no scripts but redcache's own: give redcache.new the url of a server",
    "ERR operation not permitted",
    "ERR string exceeds maximum allowed size *",
    "ERR syntax error",
    "ERR the embedded store tracks in default mode only, without *",
    "ERR unknown command",
    "ERR unknown command '@', with args beginning with: *",
    "ERR unknown command `@`, with args beginning with: *",
    "ERR unknown command '@'*",
    "ERR unknown subcommand '*'. Try * HELP.",
    "ERR user_script:*",
    "ERR value is not a valid float",
    "ERR value is not an integer or out of range",
    "ERR wrong number of arguments for '@' command",
    "ERR",
    "EXECABORT Transaction discarded because of previous errors.",
    "EXECABORT",
    "INPROG",
    "IOERR",
    "LOADING * is loading the dataset in memory*",
    "LOADING",
    "MASTERDOWN Link with MASTER is down and *-serve-stale-data is set to 'no'.",
    "MASTERDOWN",
    "MISCONF * is configured to save RDB snapshots, but *",
    "MISCONF Errors writing to the AOF file: *",
    "MISCONF",
    "MOVED",
    "NOAUTH Authentication required.",
    "NOAUTH HELLO must be called with the client already authenticated, *",
    "NOAUTH",
    "NOPERM ACL failure in script: User * has no permissions to run the '@' command",
    "NOPERM ACL failure in script: *",
    "NOPERM No permissions to access a key",
    "NOPERM The user executing the script can't access at least one of the keys *",
    "NOPERM The user executing the script can't run this command or subcommand",
    "NOPERM User * has no permissions to access one of the keys used as arguments",
    "NOPERM User * has no permissions to access the '*' key",
    "NOPERM User * has no permissions to run the '@' command",
    "NOPERM this user has no permissions to access one of the keys used as arguments",
    "NOPERM this user has no permissions to run the '@' command",
    "NOPERM this user has no permissions to run the '@' command*",
    "NOPERM",
    "NOPROTO unsupported protocol version",
    "NOPROTO sorry, this protocol version is not supported",
    "NOPROTO",
    "NOREPLICAS Not enough good replicas to write.",
    "NOREPLICAS",
    "NOSCRIPT No matching script. Please use EVAL.",
    "NOSCRIPT",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "OOM command not allowed when used memory > 'maxmemory'",
    "OOM",
    "READONLY You can't write against a read only replica.",
    "READONLY",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "TRYAGAIN",
    "UNBLOCKED client unblocked via CLIENT UNBLOCK",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "WRONGPASS invalid username-password pair",
    "WRONGPASS",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "WRONGTYPE",
};

static const char *const COMMANDS[] = {
    "asking",
    "auth",
    "client",
    "client|tracking",
    "cluster",
    "cluster|info",
    "cluster|nodes",
    "cluster|slots",
    "copy",
    "dbsize",
    "del",
    "eval",
    "evalsha",
    "exists",
    "expire",
    "get",
    "getex",
    "getrange",
    "hello",
    "incr",
    "incrby",
    "incrbyfloat",
    "info",
    "mget",
    "mset",
    "ping",
    "psetex",
    "persist",
    "pexpire",
    "pexpireat",
    "pttl",
    "readonly",
    "rename",
    "role",
    "scan",
    "script",
    "script|load",
    "select",
    "sentinel",
    "sentinel|get-master-addr-by-name",
    "sentinel|replicas",
    "set",
    "setrange",
    "time",
    "ttl",
    "unlink",
};

static const char LEFT_OUT[] = " (its text is left out: it may repeat what was sent)";

/* Redis 7.0 does not say which one is missing. */
static const char SCRIPTS_NEED[] =
    " (in a script; redcache's need get, set, unlink, pttl, pexpire, "
    "psetex, exists, rename, getrange, incr, incrby, incrbyfloat, persist, pexpireat, "
    "copy, setrange, time)";

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* Our own command of that name, or NULL. */
static const char *find_command(const char *text, size_t len)
{
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
        const char *command = COMMANDS[i];
        size_t at = 0;
        while (at < len && command[at] != '\0' && lower(text[at]) == command[at])
            at++;
        if (at == len && command[at] == '\0')
            return command;
    }
    return NULL;
}

static bool is_hole(char c)
{
    return c == '*' || c == '@';
}

/* Whether the text has the form; `hole` and `hole_len` get what stands in its first "@". Each hole
   takes as little as it can; a text for which that is too little goes untold. */
static bool fits(const char *form, const char *text, size_t len, const char **hole,
                 size_t *hole_len)
{
    size_t at = 0;
    *hole = NULL;
    while (*form != '\0') {
        if (!is_hole(*form)) {
            if (at == len || text[at] != *form)
                return false;
            at++;
            form++;
            continue;
        }
        bool is_command = *form++ == '@';
        size_t literal = strcspn(form, "*@"), begin = at;
        if (literal == 0)
            at = len; /* the last one, which takes all */
        while (literal > 0 && (len - at < literal || memcmp(text + at, form, literal) != 0)) {
            if (len - at < literal)
                return false;
            at++;
        }
        if (literal > 0 && form[literal] == '\0')
            at = len - literal; /* what ends the form ends the text */
        if (literal > 0 && memcmp(text + at, form, literal) != 0)
            return false;
        if (is_command && *hole == NULL) {
            *hole = text + begin;
            *hole_len = at - begin;
        }
    }
    return at == len;
}

static size_t put(char *out, size_t at, const char *text, size_t len)
{
    size_t room = RC_ERROR_TEXT_SIZE - at;
    memcpy(out + at, text, len < room ? len : room);
    return at + (len < room ? len : room);
}

static size_t tell(char *out, const char *form, const char *command)
{
    size_t at = 0;
    for (; *form != '\0'; form++) {
        if (*form == '@' && command != NULL)
            at = put(out, at, command, strlen(command));
        else
            at = put(out, at, is_hole(*form) ? "?" : form, 1);
    }
    return at;
}

/* Whether that stands there in the text; *at is behind it then. */
static bool skip(const char *text, size_t len, size_t *at, const char *what)
{
    size_t what_len = strlen(what);
    if (*at > len || len - *at < what_len || memcmp(text + *at, what, what_len) != 0)
        return false;
    *at += what_len;
    return true;
}

/* The length of an error without what servers add to the errors of scripts: Redis 7 and Valkey up
   to 9.0 " script: <sha>, on @user_script:1.", Valkey 9.1 " script: on @user_script:1." */
static size_t without_place(const char *text, size_t len)
{
    static const char MARK[] = " script: ", COMMA[] = ", ", PLACE[] = "on @user_script:";
    enum { SHA = 40 };
    for (size_t at = 0; at < len; at++) {
        size_t place = at;
        if (!skip(text, len, &place, MARK))
            continue;
        size_t behind_sha = place + SHA;
        if (skip(text, len, &place, PLACE) ||
            (skip(text, len, &behind_sha, COMMA) && skip(text, len, &behind_sha, PLACE)))
            return at;
    }
    return len;
}

/* "MOVED 3999 127.0.0.1:6381", and ASK: the one that follows needs the address. */
static bool is_redirection(const char *text, size_t len)
{
    size_t at = len > 6 && memcmp(text, "MOVED ", 6) == 0 ? 6
                : len > 4 && memcmp(text, "ASK ", 4) == 0 ? 4
                                                          : 0;
    size_t first = at;
    if (at == 0 || len > 300)
        return false;
    while (at < len && at < first + 5 && text[at] >= '0' && text[at] <= '9')
        at++;
    if (at == first || at == len || text[at++] != ' ')
        return false;
    for (; at < len; at++) {
        char c = lower(text[at]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && strchr(".:-_?", c) == NULL)
            return false;
    }
    return true;
}

size_t rc_error_text(char out[RC_ERROR_TEXT_SIZE], const char *text, size_t len)
{
    if (is_redirection(text, len))
        return put(out, 0, text, len);
    const char *space = len > 0 ? memchr(text, ' ', len) : NULL;
    size_t code_len = space != NULL ? (size_t)(space - text) : len;
    size_t core = without_place(text, len);
    const char *code = "ERR";
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        const char *form = FORMS[i], *hole;
        size_t hole_len = 0;
        if (fits(form, text, core, &hole, &hole_len)) {
            size_t end = tell(out, form, hole != NULL ? find_command(hole, hole_len) : NULL);
            if (strstr(form, "executing the script can't run") != NULL)
                return put(out, end, SCRIPTS_NEED, sizeof SCRIPTS_NEED - 1);
            return core < len ? put(out, end, " (in a script)", 14) : end;
        }
        if (strlen(form) == code_len && memcmp(form, text, code_len) == 0)
            code = form; /* a form without a text of its own */
    }
    size_t end = put(out, 0, code, strlen(code));
    return put(out, end, LEFT_OUT, sizeof LEFT_OUT - 1);
}
