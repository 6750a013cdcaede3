/*
 * redcache-sim - runs the engine through simulated faults, a history per seed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mutant.h"
#include "driver/sim/history.h"

static const char USAGE[] = "usage: redcache-sim [--seeds N] [--from S] [--cluster [--replicas]]\n"
                            "                    [--tags] [--breaker] [--ifeq] [--trace]\n"
                            "  --seeds N  runs N histories, one per seed; default 1000\n"
                            "  --from S   the first seed; default 1\n"
                            "  --cluster  of a cluster; else of one master\n"
                            "  --replicas some reads are for the cluster's replicas\n"
                            "  --tags     some entries have tags, which are invalidated\n"
                            "  --breaker  clients have a circuit breaker; not with --cluster\n"
                            "  --ifeq     servers compare by themselves, of a cluster some do\n"
                            "  --trace    prints what happens in them\n"
#ifdef RC_MUTANTS
                            "  --mutant X plants this bug:\n"
#define MUTANT_LINE(name, what) "      " #name ": " what "\n"
    RC_MUTANTS_EACH(MUTANT_LINE)
#undef MUTANT_LINE
#endif
        "A seed gives the same history every time. Ends with \"N seeds, N events, N violations\";\n"
        "exits with 1 where there is a violation.\n";

enum { PROGRESS_SECONDS = 10 };

#ifdef RC_MUTANTS
enum rc_mutant rc_mutant;

static bool choose_mutant(const char *name)
{
    static const char *const names[] = {"",
#define MUTANT_TEXT(name, what) #name,
                                        RC_MUTANTS_EACH(MUTANT_TEXT)
#undef MUTANT_TEXT
    };
    for (int i = 1; i < RC_MUTANT_COUNT && name != NULL; i++)
        if (strcmp(names[i], name) == 0)
            rc_mutant = (enum rc_mutant)i;
    return rc_mutant != RC_MUTANT_NONE;
}
#else
static bool choose_mutant(const char *name)
{
    (void)name;
    return false;
}
#endif

struct arguments {
    uint64_t seeds;
    uint64_t from;
    bool is_cluster;
    bool is_traced;
    bool asks_replicas;
    bool has_tags;
    bool has_breakers;
    bool has_ifeq;
};

static bool read_number(const char *text, uint64_t *number)
{
    char *end;
    errno = 0;
    *number = text != NULL ? strtoull(text, &end, 10) : 0;
    return text != NULL && *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

static bool read_arguments(struct arguments *arguments, int count, char **words)
{
    for (int i = 1; i < count; i++) {
        const char *next = i + 1 < count ? words[i + 1] : NULL;
        if (strcmp(words[i], "--trace") == 0)
            arguments->is_traced = true;
        else if (strcmp(words[i], "--cluster") == 0)
            arguments->is_cluster = true;
        else if (strcmp(words[i], "--replicas") == 0)
            arguments->asks_replicas = true;
        else if (strcmp(words[i], "--tags") == 0)
            arguments->has_tags = true;
        else if (strcmp(words[i], "--breaker") == 0)
            arguments->has_breakers = true;
        else if (strcmp(words[i], "--ifeq") == 0)
            arguments->has_ifeq = true;
        else if (strcmp(words[i], "--seeds") == 0 && read_number(next, &arguments->seeds))
            i++;
        else if (strcmp(words[i], "--from") == 0 && read_number(next, &arguments->from))
            i++;
        else if (strcmp(words[i], "--mutant") == 0 && choose_mutant(next))
            i++;
        else
            return false;
    }
    if (arguments->has_breakers && arguments->is_cluster)
        return false;
    return arguments->is_cluster || !arguments->asks_replicas;
}

static unsigned run(const struct sim_history_options *options, uint64_t *events)
{
    static struct sim_world world;
    sim_history_init(&world, options);
    sim_history_run(&world);
    *events += world.events;
    unsigned violations = world.oracle.violations > 0;
    sim_history_deinit(&world);
    return violations;
}

int main(int count, char **words)
{
    struct arguments arguments = {.seeds = 1000, .from = 1};
    uint64_t events = 0, violations = 0;
    if (!read_arguments(&arguments, count, words)) {
        fputs(USAGE, count == 2 && strcmp(words[1], "--help") == 0 ? stdout : stderr);
        return count == 2 && strcmp(words[1], "--help") == 0 ? 0 : 2;
    }
    setvbuf(stdout, NULL, arguments.is_traced ? _IOFBF : _IOLBF, 0); /* a find is seen at once */
    time_t reported = time(NULL);
    for (uint64_t i = 0; i < arguments.seeds; i++) {
        uint64_t seed = arguments.from + i;
        struct sim_history_options options = {seed,
                                              arguments.is_cluster,
                                              arguments.is_traced,
                                              arguments.asks_replicas,
                                              arguments.has_tags,
                                              arguments.has_breakers,
                                              arguments.has_ifeq};
        if (run(&options, &events) != 0) {
            violations++;
            printf("  its history: redcache-sim --seeds 1 --from %" PRIu64 "%s%s%s%s%s --trace\n",
                   seed, options.is_cluster ? " --cluster" : "",
                   options.asks_replicas ? " --replicas" : "", options.has_tags ? " --tags" : "",
                   options.has_breakers ? " --breaker" : "", options.has_ifeq ? " --ifeq" : "");
        }
        if (time(NULL) - reported >= PROGRESS_SECONDS) {
            reported = time(NULL);
            fprintf(stderr, "%" PRIu64 " of %" PRIu64 " seeds, %" PRIu64 " violations\n", i + 1,
                    arguments.seeds, violations);
        }
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " events, %" PRIu64 " violations\n", arguments.seeds,
           events, violations);
    return violations == 0 ? 0 : 1;
}
