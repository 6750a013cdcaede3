#include "store/unknown.h"

#include <stdio.h>

#include "store/answer.h"

enum { SHOWN = 128 }; /* bytes of the name, and of all arguments */

/* The commands of Redis 7.0 that the store lacks. */
static const char others[] =
    " acl asking bgrewriteaof bgsave bitcount bitfield bitfield_ro bitop bitpos blmove blmpop "
    "blpop brpop brpoplpush bzmpop bzpopmax bzpopmin cluster debug dump eval_ro "
    "evalsha_ro failover fcall fcall_ro function geoadd geodist geohash geopos georadius "
    "georadius_ro georadiusbymember georadiusbymember_ro geosearch geosearchstore getbit hdel "
    "hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset "
    "hsetnx hstrlen hvals lastsave latency lcs lindex linsert llen lmove lmpop lolwut lpop "
    "lpos lpush lpushx lrange lrem lset ltrim memory migrate module monitor move object "
    "pfadd pfcount pfdebug pfmerge pfselftest psync pubsub "
    "readonly readwrite replconf replicaof restore restore-asking role rpop rpoplpush rpush "
    "rpushx sadd save scard sdiff sdiffstore setbit shutdown sinter sintercard sinterstore "
    "sismember slaveof slowlog smembers smismember smove sort sort_ro spop spublish "
    "srandmember srem sscan ssubscribe sunion sunionstore sunsubscribe swapdb sync "
    "xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending "
    "xrange xread xreadgroup xrevrange xsetid xtrim zadd zcard zcount zdiff zdiffstore "
    "zincrby zinter zintercard zinterstore zlexcount zmpop zmscore zpopmax zpopmin "
    "zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex "
    "zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank "
    "zscan zscore zunion zunionstore ";

static int shown(size_t len, size_t room)
{
    return (int)(len < room ? len : room);
}

void rc_unknown_refuse(struct rc_call *call)
{
    char args[SHOWN * 2] = "";
    size_t used = 0;
    struct rc_text name = call->args[0];
    if (rc_text_is_among(others, name)) {
        rc_answer_error(call, RC_UNKNOWN_LACKED);
        return;
    }
    for (uint32_t i = 1; i < call->count && used < SHOWN; i++) {
        struct rc_text arg = call->args[i];
        used += (size_t)snprintf(args + used, sizeof args - used, "'%.*s' ",
                                 shown(arg.len, SHOWN - used), arg.bytes);
    }
    rc_answer_error(call, "ERR unknown command '%.*s', with args beginning with: %s",
                    shown(name.len, SHOWN), name.bytes, args);
}
