/* The floor: what one replicated, durable write costs before any Raft. Three processes on loopback, in lock-step:
 *
 *     the leader sends a batch to both followers and, meanwhile, appends it to its own file with one fdatasync; each
 *     follower appends it to its own file with one fdatasync and answers; the leader goes on to the next batch when its
 *     own copy and one other are durable.
 *
 * No terms, no checks, no machine, no second batch under way. CALLERS commands of COMMAND bytes make one batch, as if
 * all of them waited for the one before.
 *
 *     floor DIRECTORY COMMAND CALLERS SECONDS WARM_UP
 *
 * prints one line of JSON as benchmarks/node.py does, with the CPU seconds of all three, and ends. The followers end
 * with the leader's connections.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FOLLOWERS = 2, SAMPLES_MAX = 4000000 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Reads exactly `size` bytes; gives 0 at the end of the stream. */
static int receive(int fd, char *buffer, size_t size) {
    for (size_t have = 0; have < size;) {
        ssize_t n = read(fd, buffer + have, size - have);
        if (n == 0) return 0;
        if (n < 0 && errno != EINTR) fail("read");
        if (n > 0) have += n;
    }
    return 1;
}

static void put(int fd, const char *buffer, size_t size) {
    for (size_t sent = 0; sent < size;) {
        ssize_t n = write(fd, buffer + sent, size - sent);
        if (n < 0 && errno != EINTR) fail("write");
        if (n > 0) sent += n;
    }
}

static int open_log(const char *directory, int number) {
    char path[4096];
    snprintf(path, sizeof path, "%s/log%d", directory, number);
    int fd = open(path, O_CREAT | O_WRONLY | O_APPEND | O_TRUNC, 0600);
    if (fd < 0) fail(path);
    return fd;
}

static void append(int log, const char *batch, size_t size) {
    put(log, batch, size);
    if (fdatasync(log) < 0) fail("fdatasync");
}

static void follow(int connection, int log, char *batch, size_t size) {
    while (receive(connection, batch, size)) {
        append(log, batch, size);
        put(connection, batch, 8); /* the number of the batch */
    }
    exit(0);
}

static int listen_on_loopback(struct sockaddr_in *name) {
    socklen_t length = sizeof *name;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    *name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (listener < 0 || bind(listener, (struct sockaddr *)name, length) < 0 || listen(listener, FOLLOWERS) < 0 ||
        getsockname(listener, (struct sockaddr *)name, &length) < 0)
        fail("listen");
    return listener;
}

/* Starts a follower in a process of its own; gives the leader's end of their connection. */
static int start_follower(const char *directory, int number, char *batch, size_t size) {
    struct sockaddr_in name;
    int one = 1, listener = listen_on_loopback(&name);
    pid_t parent = getpid(), child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) exit(1);
        int connection = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(connection, (struct sockaddr *)&name, sizeof name) < 0) fail("connect");
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        close(listener);
        follow(connection, open_log(directory, number), batch, size);
    }
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) fail("accept");
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(connection, F_SETFD, FD_CLOEXEC);
    close(listener);
    return connection;
}

/* Waits until a follower has acknowledged batch `wanted`; acknowledgements of earlier ones are taken and dropped. */
static void wait_for_one(struct pollfd *connections, unsigned long wanted) {
    for (;;) {
        if (poll(connections, FOLLOWERS, -1) < 0 && errno != EINTR) fail("poll");
        for (int i = 0; i < FOLLOWERS; i++) {
            unsigned long number;
            if (!(connections[i].revents & (POLLIN | POLLHUP))) continue;
            if (!receive(connections[i].fd, (char *)&number, sizeof number)) exit(1);
            if (number == wanted) return;
        }
    }
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double cpu_seconds(int who) {
    struct rusage used;
    getrusage(who, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

int main(int count, char **words) {
    if (count != 6) {
        fprintf(stderr, "usage: floor DIRECTORY COMMAND CALLERS SECONDS WARM_UP\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    size_t callers = strtoul(words[3], NULL, 10), size = strtoul(words[2], NULL, 10) * callers;
    double seconds = strtod(words[4], NULL), warm_up = strtod(words[5], NULL);
    char *batch = calloc(1, size < 8 ? 8 : size);
    double *samples = malloc(SAMPLES_MAX * sizeof *samples);
    struct pollfd connections[FOLLOWERS];
    if (size < 8 || !batch || !samples) fail("memory");
    for (int i = 0; i < FOLLOWERS; i++)
        connections[i] = (struct pollfd){.fd = start_follower(words[1], i + 1, batch, size), .events = POLLIN};

    int log = open_log(words[1], 0);
    double begin = now() + warm_up, end = begin + seconds, start = now();
    unsigned long number = 0, measured = 0;
    while (start < end && measured < SAMPLES_MAX) {
        number++;
        memcpy(batch, &number, sizeof number);
        for (int i = 0; i < FOLLOWERS; i++) put(connections[i].fd, batch, size);
        append(log, batch, size);
        wait_for_one(connections, number);
        double done = now();
        if (done >= begin && done <= end) samples[measured++] = done - start;
        start = done;
    }
    for (int i = 0; i < FOLLOWERS; i++) { /* what a follower still answers is taken, or its end would be an error */
        unsigned long rest;
        shutdown(connections[i].fd, SHUT_WR);
        while (receive(connections[i].fd, (char *)&rest, sizeof rest)) continue;
    }
    for (int i = 0; i < FOLLOWERS; i++) wait(NULL);
    if (measured == 0) {
        fprintf(stderr, "no batch ended within %g s\n", seconds);
        return 1;
    }
    qsort(samples, measured, sizeof *samples, compare);
    printf("{\"count\": %lu, \"total\": %lu, \"seconds\": %g, \"p50\": %.9f, \"p99\": %.9f, \"p999\": %.9f, "
           "\"cpu_seconds\": %.6f}\n",
           measured * callers, number * callers, seconds, samples[measured / 2], samples[measured * 99 / 100],
           samples[measured * 999 / 1000], cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN));
    return 0;
}
