#include "engine/script.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "redcache.h"

/* clang-format off */

/* An entry starts with its magic and version byte, kind is byte 3, codec byte 4, flags byte 5,
   nonce bytes 9-16 (entry.h; kind() is its rc_entry_form, id() its rc_entry_identity). What never
   expires is neither lease nor marker of ours, whatever it looks like: somebody's value. */
#define IS_ENTRY(v) "string.sub(" v ",1,2)=='\\251\\1' and #" v ">=24"
#define NONCE(v) "string.sub(" v ",9,16)"
#define KIND                                                                                  \
    "local function kind(v) "                                                                 \
        "if #v<24 or string.sub(v,1,2)~='\\251\\1' then return 0 end "                        \
        "local k=string.byte(v,3) "                                                           \
        "if k~=3 and k~=4 then return k end "                                                 \
        "local bare=string.sub(v,4,4)..string.sub(v,6,8)..string.sub(v,17,24) "               \
        "if bare~=string.rep('\\0',12) then return 0 end "                                    \
        "if k==4 and (#v>24 or string.byte(v,5)>0) then return 0 end "                        \
        "return k "                                                                           \
    "end "
#define ID "local function id(v) return kind(v)>0 and " NONCE("v") " or redis.sha1hex(v) end "
#define STORE(value, ttl)                                                                     \
    "if " ttl "=='-1' then redis.call('SET',KEYS[1]," value ") "                              \
    "else redis.call('PSETEX',KEYS[1]," ttl "," value ") end "
#define NEWER_VALUE                                                                           \
    "if not v then return {0} end "                                                           \
    "local k=kind(v) "                                                                        \
    "local left=redis.call('PTTL',KEYS[1]) "                                                  \
    "if (k==3 or k==4) and left>=0 then return {0} end "                                      \
    "return {2,v,left}"

/* A queue is a string of records of 47 bytes, in the order of coming: what it is ('w' waits to be
   alone, 'r' waits to share, 'R' shares), 32 of the token, 14 digits of when it ends, in the
   server's milliseconds. What has ended, or is no record, is not there. read() gathers the others
   in `list`, but for that of the token, of which `mine` and `place` tell. */
#define QUEUE                                                                                 \
    "local t=redis.call('TIME') "                                                             \
    "local now=t[1]*1000+math.floor(t[2]/1000) "                                              \
    "local token,ttl=ARGV[1] or '',tonumber(ARGV[2]) or 0 "                                   \
    "local list,place,mine={} "                                                               \
    "local function till(r) return tonumber(string.match(r,'^%d+$',34) or '') or 0 end "      \
    "local function read(key) "                                                               \
        "local q=redis.call('GET',key) or '' "                                                \
        "for i=1,#q-46,47 do "                                                                \
            "local r=string.sub(q,i,i+46) "                                                   \
            "if till(r)>now then "                                                            \
                "if string.sub(r,2,33)==token then place,mine=#list+1,string.sub(r,1,1) "     \
                "else list[#list+1]=r end "                                                   \
            "end "                                                                            \
        "end "                                                                                \
    "end "                                                                                    \
    "local function add(kind) "                                                               \
        "table.insert(list,place or #list+1,kind..token..string.format('%014.0f',now+ttl)) "  \
    "end "                                                                                    \
    "local function write(key) "                                                              \
        "local last=now "                                                                     \
        "for i=1,#list do last=math.max(last,till(list[i])) end "                             \
        "if last==now then redis.call('UNLINK',key) return end "                              \
        "redis.call('SET',key,table.concat(list),'PX',string.format('%.0f',last-now)) "       \
    "end "

#define GIVE_FENCE                                                                            \
    "local fence=redis.call('INCR',KEYS[2]) "                                                 \
    "if fence<now then fence=now end "                                                        \
    "redis.call('SET',KEYS[2],string.format('%.0f',fence),'PX',ARGV[4]) "                     \
    "redis.call('GET',KEYS[1]) "                                                              \
    "return {1,fence}"

static const char *const SOURCES[RC_SCRIPT_COUNT] = {
    /* SET NX GET does not make the server track the key, so the holder gets no push for its own
       lease; a caller that finds a load running or a value reads the key once more, and is told
       when it changes. */
    [RC_SCRIPT_ACQUIRE] =
        "local v=redis.call('SET',KEYS[1],ARGV[1],'NX','GET','PX',ARGV[2]) "
        "if not v or v==ARGV[1] then return {1} end "
        KIND
        "local k=kind(v) "
        "local left=-1 "
        "if k==3 or k==4 then left=redis.call('PTTL',KEYS[1]) end "
        "if k==3 and left>=0 then "
            "if " NONCE("v") "==ARGV[3] or string.byte(v,5)>=128 then return {3,v} end "
            "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) "
            "return {1} "
        "end "
        "if k==4 and left>=0 then "
            "redis.call('GET',KEYS[1]) "
            "return {0,left," NONCE("v") "} "
        "end "
        "if ARGV[4] then "
            ID
            "if id(v)==ARGV[4] then "
                "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) "
                "return {1} "
            "end "
        "end "
        "redis.call('GET',KEYS[1]) "
        "return {2,v,redis.call('PTTL',KEYS[1])}",

    /* Finding the very value again: the answer to an earlier publish was lost on its way. */
    [RC_SCRIPT_PUBLISH] =
        "local v=redis.call('GET',KEYS[1]) "
        "if v==ARGV[1] then " STORE("ARGV[2]", "ARGV[3]") "return 1 end "
        "if v==ARGV[2] then return 1 end "
        KIND NEWER_VALUE,

    [RC_SCRIPT_RELEASE] =
        "local n=0 "
        "for i=1,#KEYS do "
            "if redis.call('GET',KEYS[i])==ARGV[1] then redis.call('UNLINK',KEYS[i]) n=n+1 end "
        "end "
        "return n",

    [RC_SCRIPT_HEARTBEAT] =
        "local n=0 "
        "for i=1,#KEYS do "
            "if redis.call('GET',KEYS[i])==ARGV[1] then "
                "redis.call('PEXPIRE',KEYS[i],ARGV[2]) n=n+1 "
            "end "
        "end "
        "return n",

    /* A value near its end becomes the lease itself. Finding that lease: the answer to an earlier
       request was lost on its way. */
    [RC_SCRIPT_REFRESH] =
        "local h=redis.call('GETRANGE',KEYS[1],0,23) "
        "if h==ARGV[2] then return {1,-1} end "
        "if " NONCE("h") "~=ARGV[1] then return {0} end "
        "if not redis.call('SET',KEYS[2],ARGV[2],'NX','PX',ARGV[3]) "
            "and redis.call('GET',KEYS[2])~=ARGV[2] then "
            "return {0,redis.call('PTTL',KEYS[2])} "
        "end "
        "local left=redis.call('PTTL',KEYS[1]) "
        "if left>=0 and left<=(tonumber(ARGV[4]) or 0) then "
            "redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) "
            "left=-1 "
        "end "
        "return {1,left}",

    [RC_SCRIPT_REFRESH_PUBLISH] =
        "local v=redis.call('GET',KEYS[1]) "
        "if redis.call('GET',KEYS[2])==ARGV[2] then redis.call('UNLINK',KEYS[2]) end "
        KIND
        "if v and (v==ARGV[2] or kind(v)>0 and " NONCE("v") "==ARGV[1]) then "
            STORE("ARGV[3]", "ARGV[4]") "return {1} "
        "end "
        "if v==ARGV[3] then return {1} end "
        NEWER_VALUE,

    [RC_SCRIPT_PUT] =
        "local v=redis.call('GET',KEYS[1]) "
        "local w=redis.call('GET',KEYS[2]) "
        "if w and w~=ARGV[1] then return {0,redis.call('PTTL',KEYS[2])," NONCE("w") "} end "
        KIND ID
        "local k=v and kind(v) "
        "local left=redis.call('PTTL',KEYS[1]) "
        "if (k==3 or k==4) and left<0 then k=0 end "
        "if k==4 and v~=ARGV[1] then return {0,left," NONCE("v") "} end "
        "redis.call('SET',KEYS[2],ARGV[1],'PX',ARGV[2]) "
        "local ends=left>=0 and left<=(tonumber(ARGV[3]) or 0) "
        "if not v or k==3 or k==4 or (ends and not KEYS[3]) then "
            "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) "
            "return {1,ARGV[1],-1} "
        "end "
        "if KEYS[3] then "
            "redis.call('RENAME',KEYS[1],KEYS[3]) "
            "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) "
            "return {1,ARGV[1],-1} "
        "end "
        "return {1,id(v),left}",

    [RC_SCRIPT_PUT_PUBLISH] =
        "local v=redis.call('GET',KEYS[1]) "
        "local mine=redis.call('GET',KEYS[2])==ARGV[1] "
        "if mine then redis.call('UNLINK',KEYS[2]) end "
        "if KEYS[3] then redis.call('UNLINK',KEYS[3]) end "
        "if v==ARGV[2] then return {1} end "
        KIND ID
        "if not mine or not v or (v~=ARGV[1] and id(v)~=ARGV[4]) then return {0} end "
        STORE("ARGV[2]", "ARGV[3]")
        "return {1}",

    [RC_SCRIPT_PUT_RESTORE] =
        "local n=0 "
        "if redis.call('GET',KEYS[2])==ARGV[1] then "
            "redis.call('UNLINK',KEYS[2]) n=1 "
            "if redis.call('EXISTS',KEYS[3])==1 then redis.call('RENAME',KEYS[3],KEYS[2]) end "
        "end "
        "if redis.call('GET',KEYS[1])==ARGV[1] then "
            "redis.call('UNLINK',KEYS[1],KEYS[3]) n=n+1 "
        "end "
        "return n",

    [RC_SCRIPT_UNLINK_VERSION] =
        "local h=redis.call('GETRANGE',KEYS[1],0,23) "
        "if " IS_ENTRY("h") " and " NONCE("h") "==ARGV[1] then "
            "redis.call('UNLINK',KEYS[1]) return 1 "
        "end "
        "if h=='' and redis.call('EXISTS',KEYS[1])==0 then return 0 end "
        "return -1",
    /* Compares before it takes the key's place: what is absent was perhaps deleted, and is never
       taken for something that has expired. The header alone is read as long as the end is far. */
    [RC_SCRIPT_COVER] =
        "local n,left=0,-1 "
        "local ttl=ARGV[2] "
        "if redis.call('GET',KEYS[2])==ARGV[1] then "
            "n=1 "
            "if ARGV[5]=='1' then redis.call('PEXPIRE',KEYS[2],ttl) "
            "else ttl=redis.call('PTTL',KEYS[2]) end "
        "end "
        "if redis.call('GETRANGE',KEYS[1],0,23)==ARGV[1] then "
            "n=n+1 "
            "if ARGV[5]=='1' then redis.call('PEXPIRE',KEYS[1],ttl) end "
            "return {n,left} "
        "end "
        "if n==0 then return {n,left} end "
        "left=redis.call('PTTL',KEYS[1]) "
        "if left>=0 and left<=(tonumber(ARGV[4]) or 0) then "
            KIND ID
            "if id(redis.call('GET',KEYS[1]))==ARGV[3] then "
                "redis.call('SET',KEYS[1],ARGV[1],'PX',ttl) "
            "end "
            "left=-1 "
        "end "
        "return {n,left}",

    [RC_SCRIPT_REFRESH_FAIL] =
        "local n=0 "
        "if redis.call('GET',KEYS[2])==ARGV[1] then redis.call('PEXPIRE',KEYS[2],ARGV[4]) n=1 end "
        "if redis.call('GET',KEYS[1])==ARGV[1] then "
            "redis.call('PSETEX',KEYS[1],ARGV[3],ARGV[2]) n=n+1 "
        "end "
        "return n",

    /* SET NX GET and INCR do not make the server track a key, GET does: a waiter tracks the release
       mark only, so renewals wake nobody; a holder tracks the lock itself and hears of its loss.
       The fence follows the server's clock, so its key need not live for ever. */
    [RC_SCRIPT_LOCK] =
        "if ARGV[3]=='1' then "
            "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) "
        "else "
            "local old=redis.call('SET',KEYS[1],ARGV[1],'NX','GET','PX',ARGV[2]) "
            "if old then "
                "if old~=ARGV[1] then redis.call('GET',KEYS[3]) return {0} end "
                "redis.call('PEXPIRE',KEYS[1],ARGV[2]) " /* a repetition: ttl counts from it */
            "end "
        "end "
        "local t=redis.call('TIME') "
        "local now=t[1]*1000000+t[2] "
        GIVE_FENCE,

    [RC_SCRIPT_LOCK_RENEW] =
        "if redis.call('GET',KEYS[1])~=ARGV[1] then return 0 end "
        "redis.call('PEXPIRE',KEYS[1],ARGV[2]) "
        "redis.call('GET',KEYS[1]) "
        "return 1",

    /* Finding the mark of this very release: the answer to an earlier one was lost on its way. */
    [RC_SCRIPT_LOCK_RELEASE] =
        "if redis.call('GET',KEYS[1])~=ARGV[1] then "
        "if redis.call('GET',KEYS[2])==ARGV[1] then return 1 end return 0 end "
        "redis.call('UNLINK',KEYS[1]) "
        "redis.call('SET',KEYS[2],ARGV[1],'PX',1000) "
        "return 1",

    /* Who wants to be alone waits for all in front of it, and for all that share; who wants to
       share waits for those in front of it that want to be alone: so neither is starved, and nobody
       is overtaken. Finding the token where a grant puts it: the answer to an earlier request was
       lost on its way. */
    [RC_SCRIPT_QUEUE_LOCK] =
        QUEUE
        "read(KEYS[4]) "
        "local wake "
        "local function wait_for(till) if not wake or till<wake then wake=till end end "
        "local alone=redis.call('GET',KEYS[5]) "
        "if alone and alone~=token then wait_for(now+redis.call('PTTL',KEYS[5])) end "
        "for i=1,#list do "
            "local kind,ahead=string.sub(list[i],1,1),not place or i<place "
            "if ARGV[3]=='w' and (ahead or kind=='R') "
                "or ARGV[3]~='w' and ahead and kind=='w' then "
                "wait_for(till(list[i])) "
            "end "
        "end "
        "if wake and alone~=token and mine~='R' then "
            "if ARGV[5]=='1' then add(ARGV[3]) end "
            "write(KEYS[4]) "
            "redis.call('GET',KEYS[3]) "
            "return {0,wake-now} "
        "end "
        "if ARGV[3]~='w' then add('R') end "
        "write(KEYS[4]) "
        "redis.call('SET',KEYS[1],token,'PX',ARGV[2]) "
        "if ARGV[3]~='w' then redis.call('GET',KEYS[1]) return {1,1} end "
        "now=t[1]*1000000+t[2] "
        GIVE_FENCE,

    [RC_SCRIPT_QUEUE_RENEW] =
        QUEUE
        "if redis.call('GET',KEYS[1])~=token then return 0 end "
        "read(KEYS[2]) "
        "if mine~='R' then redis.call('UNLINK',KEYS[1]) return 0 end "
        "add('R') "
        "write(KEYS[2]) "
        "redis.call('PEXPIRE',KEYS[1],ARGV[2]) "
        "redis.call('GET',KEYS[1]) "
        "return 1",

    [RC_SCRIPT_QUEUE_RELEASE] =
        QUEUE
        "local held=redis.call('GET',KEYS[1])==token "
        "read(KEYS[3]) "
        "if not held and not place then "
            "if redis.call('GET',KEYS[2])==token then return 1 end return 0 "
        "end "
        "if place then write(KEYS[3]) end "
        "if held then redis.call('UNLINK',KEYS[1]) end "
        "redis.call('SET',KEYS[2],token,'PX',1000) "
        "return held and 1 or 0",

    [RC_SCRIPT_PUBLISH_MANY] =
        "local call,done=redis.call,{} "
        "for i=1,#KEYS do "
            "local key,at=KEYS[i],i*3 "
            "if call('GET',key)~=ARGV[at-2] then done[i]='0' "
            "else "
                "done[i]='1' "
                "if ARGV[at]=='-1' then call('SET',key,ARGV[at-1]) "
                "else call('PSETEX',key,ARGV[at],ARGV[at-1]) end "
            "end "
        "end "
        "return table.concat(done)",
};

/* Theirs, which script_test holds to them: no start pays for 12 KB of SHA-1. */
static const char *const SHAS[RC_SCRIPT_COUNT] = {
    [RC_SCRIPT_ACQUIRE] = "d65b6ca0f80c30d5c406764db99d336b2b7955a7",
    [RC_SCRIPT_PUBLISH] = "6fbbe173b0063228b8b45c268876db37f9492d07",
    [RC_SCRIPT_RELEASE] = "58978a4cf47c30c02a216c0aea2629c21151f9fc",
    [RC_SCRIPT_HEARTBEAT] = "85c880fa508adf722396fa6087d801a0f3c81f1b",
    [RC_SCRIPT_REFRESH] = "dc04e7b51529e2aac176c60c744807f13e106b5e",
    [RC_SCRIPT_REFRESH_PUBLISH] = "768a3438b06a562c2afc66a84a4a61512591f8ec",
    [RC_SCRIPT_PUT] = "e8ac83d8838eedcd0a33ccc0ab3e9d4830885659",
    [RC_SCRIPT_PUT_PUBLISH] = "81643d20ebbdda91bf4d77dafdb114190a01b7b8",
    [RC_SCRIPT_PUT_RESTORE] = "0b52cb297f91c0adb90bde479dd6ded8cc64a2f7",
    [RC_SCRIPT_UNLINK_VERSION] = "5a18646c741cf74c3c4509ee78c7f1a6002b3aba",
    [RC_SCRIPT_COVER] = "9c04338b06df2604d5f35edd7866e5a941b4dc63",
    [RC_SCRIPT_REFRESH_FAIL] = "ff032de99f2ad815b4b93a28c5ed5edc2acad3e3",
    [RC_SCRIPT_LOCK] = "b09cdd53c7dfee1073b5d9fdd6895707b843ddbe",
    [RC_SCRIPT_LOCK_RENEW] = "2a10f9f704e1a6ea2e862478d003b8f9e640c898",
    [RC_SCRIPT_LOCK_RELEASE] = "a734b726ca2acbca585f52257d35145351cfeb88",
    [RC_SCRIPT_QUEUE_LOCK] = "d65acc5af174fad3268027bd9f25fa8263607a50",
    [RC_SCRIPT_QUEUE_RENEW] = "353120d3b1e71bba4138cb12d2f15d1a33a1979b",
    [RC_SCRIPT_QUEUE_RELEASE] = "9144d5ec991a9f51b3cb6b50fb0615822d25647d",
    [RC_SCRIPT_PUBLISH_MANY] = "365377769ce4616412350428ab599d83db660001",
};
/* clang-format on */

struct text {
    const char *source; /* NUL-ended */
    size_t len;
    char sha[RC_SHA_LEN + 1];
};

static struct text own[RC_SCRIPT_COUNT];

/* By number, our own first, without gaps; only ever added to. Acquire and release: a thread that
   finds a text finds its bytes. */
static struct text *_Atomic texts[RC_SCRIPTS_MAX];

void rc_scripts_init(void)
{
    for (int i = 0; i < RC_SCRIPT_COUNT; i++) {
        own[i].source = SOURCES[i];
        own[i].len = strlen(SOURCES[i]);
        memcpy(own[i].sha, SHAS[i], sizeof own[i].sha);
        atomic_store_explicit(&texts[i], &own[i], memory_order_release);
    }
}

/* NULL: there is none of that number. */
static const struct text *text_of(int script)
{
    return script < RC_SCRIPTS_MAX ? atomic_load_explicit(&texts[script], memory_order_acquire)
                                   : NULL;
}

int rc_script_find(const char *sha)
{
    const struct text *text;
    for (int i = 0; (text = text_of(i)) != NULL; i++) {
        if (memcmp(text->sha, sha, RC_SHA_LEN) == 0)
            return i;
    }
    return -1;
}

/* In one piece of memory with its source. */
static struct text *new_text(const char *source, size_t len)
{
    struct text *text = len < SIZE_MAX / 2 ? malloc(sizeof *text + len + 1) : NULL;
    if (text == NULL)
        return NULL;
    char *copy = (char *)(text + 1);
    if (len > 0)
        memcpy(copy, source, len);
    copy[len] = '\0';
    text->source = copy;
    text->len = len;
    rc_sha1_hex(copy, len, text->sha);
    return text;
}

int rc_script_add(const char *source, size_t len)
{
    struct text *text = new_text(source, len);
    if (text == NULL)
        return RC_ERR_NOMEM;
    for (int i = 0; i < RC_SCRIPTS_MAX; i++) {
        struct text *there = NULL;
        if (atomic_compare_exchange_strong_explicit(&texts[i], &there, text, memory_order_acq_rel,
                                                    memory_order_acquire))
            return i;
        if (memcmp(there->sha, text->sha, RC_SHA_LEN) == 0) {
            free(text);
            return i;
        }
    }
    free(text);
    return RC_ERR_OVERLOAD;
}

bool rc_script_is_known(int script)
{
    return script >= 0 && text_of(script) != NULL;
}

const char *rc_script_source(int script)
{
    return text_of(script)->source;
}

const char *rc_script_sha(int script)
{
    return text_of(script)->sha;
}

int rc_script_begin(struct rc_buf *out, int script, uint32_t key_count, uint32_t argument_count)
{
    int error = rc_command_head(out, 3 + key_count + argument_count);
    if (error == 0)
        error = rc_command_text(out, "EVALSHA");
    if (error == 0)
        error = rc_command_bytes(out, text_of(script)->sha, RC_SHA_LEN);
    return error == 0 ? rc_command_int(out, key_count) : error;
}

int rc_script_as_eval(struct rc_buf *out, int script, const char *bytes, size_t len)
{
    const struct text *text = text_of(script);
    struct rc_command_reader reader = {bytes, bytes + len};
    struct rc_command command;
    struct rc_command_word sha;
    bool is_ours = rc_command_next(&reader, &command) &&
                   rc_command_is_word(command.name, "EVALSHA") &&
                   rc_command_next_word(&command.rest, &sha);
    assert(is_ours); /* we have encoded it */
    (void)is_ours;
    int error = rc_command_head(out, command.count);
    if (error == 0)
        error = rc_command_text(out, "EVAL");
    if (error == 0)
        error = rc_command_bytes(out, text->source, text->len);
    const char *rest = command.rest.at;
    return error == 0 ? rc_buf_append(out, rest, (size_t)(bytes + len - rest)) : error;
}
