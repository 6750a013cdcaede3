/*
 * lua_host.c - a C program with a Lua state of its own in each of several threads.
 *
 * What:    lua_host THREADS SCRIPT ARGUMENTS... runs the script in THREADS threads at once. Beside
 * LuaJIT's libraries it sees THREAD (1 to THREADS), THREADS, arg, and the functions barrier(),
 * now() and tally(). Threads: one Lua state is used by one thread only; the states share nothing
 * but `struct host`. Memory:  everything is freed before the end, so that a leak checker sees only
 * the leaks of what the script loaded. Errors:  exit status 0 when every thread's script came to
 * its end, 1 when one threw, 2 for a wrong command line. Not:     a way to pass values between
 * threads (print lines and let the parent read them).
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MAX_THREADS 1024
#define TALLIES     16

struct host {
    /* Fixed after init. */
    int threads;
    int argc;
    char **argv; /* argv[0] is the script */

    /* Guarded by mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t moved;
    int arrived;
    unsigned round;
    bool ended; /* a thread has left: no barrier can be completed any more */

    /* Any thread. */
    atomic_llong tally[TALLIES];
};

struct thread {
    struct host *host;
    pthread_t id;
    int index;
    int status;
};

static struct host *host_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* barrier(): returns when all threads are in it; throws when one has ended, instead of waiting for
 * ever. */
static int barrier(lua_State *L)
{
    struct host *host = host_of(L);
    pthread_mutex_lock(&host->mutex);
    unsigned round = host->round;
    if (!host->ended && ++host->arrived == host->threads) {
        host->arrived = 0;
        host->round++;
        pthread_cond_broadcast(&host->moved);
    }
    while (host->round == round && !host->ended)
        pthread_cond_wait(&host->moved, &host->mutex);
    bool passed = host->round != round;
    pthread_mutex_unlock(&host->mutex);
    return passed ? 0 : luaL_error(L, "the barrier is broken: another thread has ended");
}

/* now(): seconds of the monotonic clock. */
static int now(lua_State *L)
{
    struct timespec instant;
    clock_gettime(CLOCK_MONOTONIC, &instant);
    lua_pushnumber(L, (double)instant.tv_sec + (double)instant.tv_nsec * 1e-9);
    return 1;
}

/* tally(which, add): adds to one of the counters all threads share, returns its new value. */
static int tally(lua_State *L)
{
    struct host *host = host_of(L);
    int which = luaL_checkint(L, 1);
    luaL_argcheck(L, which >= 1 && which <= TALLIES, 1, "1 to 16 expected");
    long long add = (long long)luaL_optnumber(L, 2, 1);
    /* Relaxed: a count orders nothing; barrier() and pthread_join do. */
    long long before =
        atomic_fetch_add_explicit(&host->tally[which - 1], add, memory_order_relaxed);
    lua_pushnumber(L, (double)(before + add));
    return 1;
}

static void set_function(lua_State *L, struct host *host, const char *name, lua_CFunction function)
{
    lua_pushlightuserdata(L, host);
    lua_pushcclosure(L, function, 1);
    lua_setglobal(L, name);
}

static void set_globals(lua_State *L, struct thread *thread)
{
    struct host *host = thread->host;
    lua_pushinteger(L, thread->index);
    lua_setglobal(L, "THREAD");
    lua_pushinteger(L, host->threads);
    lua_setglobal(L, "THREADS");
    lua_createtable(L, host->argc, 1);
    for (int i = 0; i < host->argc; i++) {
        lua_pushstring(L, host->argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_setglobal(L, "arg");
    set_function(L, host, "barrier", barrier);
    set_function(L, host, "now", now);
    set_function(L, host, "tally", tally);
}

/* Under lua_cpcall, so that no error is left unprotected. */
static int protected_run(lua_State *L)
{
    struct thread *thread = lua_touserdata(L, 1);
    luaL_openlibs(L);
    set_globals(L, thread);
    lua_getglobal(L, "debug");
    lua_getfield(L, -1, "traceback");
    if (luaL_loadfile(L, thread->host->argv[0]) != 0)
        return lua_error(L);
    if (lua_pcall(L, 0, 0, -2) != 0)
        return lua_error(L);
    return 0;
}

static void leave(struct host *host)
{
    pthread_mutex_lock(&host->mutex);
    host->ended = true;
    pthread_cond_broadcast(&host->moved);
    pthread_mutex_unlock(&host->mutex);
}

static void *run_thread(void *data)
{
    struct thread *thread = data;
    thread->status = 1;
    lua_State *L = luaL_newstate();
    if (L == NULL) {
        fprintf(stderr, "lua_host: thread %d: could not create a Lua state\n", thread->index);
    } else if (lua_cpcall(L, protected_run, thread) != 0) {
        const char *text = lua_tostring(L, -1);
        fprintf(stderr, "lua_host: thread %d: %s\n", thread->index, text ? text : "(no text)");
    } else {
        thread->status = 0;
    }
    leave(thread->host);
    if (L != NULL)
        lua_close(L);
    return NULL;
}

/* Starts the threads, waits for all that started; the greatest status of any. */
static int run_threads(struct host *host, struct thread *threads)
{
    int started = 0, status = 0;
    for (; started < host->threads; started++) {
        struct thread *thread = &threads[started];
        thread->host = host;
        thread->index = started + 1;
        if (pthread_create(&thread->id, NULL, run_thread, thread) != 0) {
            fprintf(stderr, "lua_host: could not start thread %d\n", thread->index);
            leave(host);
            status = 1;
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i].id, NULL);
        if (threads[i].status > status)
            status = threads[i].status;
    }
    return status;
}

int main(int argc, char **argv)
{
    int count = argc >= 3 ? atoi(argv[1]) : 0;
    if (count < 1 || count > MAX_THREADS) {
        fprintf(stderr, "usage: lua_host THREADS SCRIPT [ARGUMENT ...]   (1 to %d threads)\n",
                MAX_THREADS);
        return 2;
    }
    struct host host = {.threads = count, .argc = argc - 2, .argv = argv + 2};
    struct thread *threads = calloc((size_t)count, sizeof *threads);
    if (threads == NULL)
        return 2;
    pthread_mutex_init(&host.mutex, NULL);
    pthread_cond_init(&host.moved, NULL);
    int status = run_threads(&host, threads);
    pthread_cond_destroy(&host.moved);
    pthread_mutex_destroy(&host.mutex);
    free(threads);
    return status;
}
