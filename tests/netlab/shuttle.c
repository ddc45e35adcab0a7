/*
 * shuttle: two network namespaces and the links between them, each with a rate, a delay, loss and a queue.
 *
 *     shuttle run CONTROL_FD COUNTERS_FD LINKS SEED      makes both namespaces, and moves packets until CONTROL ends
 *     shuttle enter NAMESPACE PARENT_PID COMMAND ...     runs a command in one of them; it dies with PARENT_PID
 *
 * A link is a TUN device on both sides. What is read from one end passes a lane and is written to the other end:
 *
 *     TUN -> queue (tail drop, bytes) -> serialised at the rate -> lost or not -> delayed -> TUN
 *
 * The bottleneck has a clock of its own (`free_ns`): a late wake-up delays a packet, it does not lower the rate.
 * Nothing is reordered. Whether a packet is lost depends on the seed, the link, the direction and its number alone.
 * While a lane is cut, whatever is in it or comes to it vanishes.
 *
 * The namespaces have no name. They live as long as this process, or what runs in them, which it kills at the end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lane.h"

#define LINKS_MAX 16
#define TURNS_MAX 100
#define GRID_NS 100000 /* deliveries happen at multiples of this, like a card's interrupt moderation */

static struct lane lanes[2 * LINKS_MAX]; /* 2 * link + direction; direction 0 is left to right */
static int lane_count, control;

static void fail(const char *format, ...)
{
    char text[512];
    va_list arguments;
    int length = snprintf(text, sizeof text, "error ");
    va_start(arguments, format);
    vsnprintf(text + length, sizeof text - length, format, arguments);
    va_end(arguments);
    if (send(control, text, strlen(text), MSG_NOSIGNAL) < 0) fprintf(stderr, "shuttle: %s\n", text);
    exit(1);
}

/* ---- control ----------------------------------------------------------------------------------------------- */

/* One order: LANE RATE_BPS DELAY_NS LOSS_PPB QUEUE_BYTES CUT. Answered by "ok". */
static void obey(const char *order)
{
    unsigned long long number, rate, delay, loss, queue, cut;
    struct lane *lane;
    uint64_t now = now_ns();
    if (sscanf(order, "%llu %llu %llu %llu %llu %llu", &number, &rate, &delay, &loss, &queue, &cut) != 6 ||
        number >= (unsigned)lane_count)
        fail("not an order: %s", order);
    lane = &lanes[number];
    advance(lane, now);
    if (lane->free_ns < now) lane->free_ns = now; /* the time before was another rate's */
    lane->rate_bps = rate;
    lane->delay_ns = delay;
    lane->loss_ppb = loss;
    lane->queue_bytes_max = queue;
    lane->is_cut = cut;
    if (cut) empty(lane);
    if (send(control, "ok", 2, MSG_NOSIGNAL) < 0) exit(1);
}

/* Kill whatever runs in these namespaces, but not ourselves; returns how many. */
static int kill_all_in(const ino_t *inodes)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int killed = 0;
    while (processes && (entry = readdir(processes))) {
        char path[64];
        struct stat found;
        int pid = atoi(entry->d_name);
        if (pid <= 0 || pid == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
        if (stat(path, &found) == 0 && (found.st_ino == inodes[0] || found.st_ino == inodes[1]))
            killed += kill(pid, SIGKILL) == 0;
    }
    if (processes) closedir(processes);
    return killed;
}

static uint64_t next_ns(void)
{
    uint64_t next = UINT64_MAX, one;
    int at;
    for (at = 0; at < lane_count; at++) {
        struct lane *lane = &lanes[at];
        if (lane->head != lane->middle)
            one = lane->ring[lane->head & lane->mask].ns;
        else if (lane->middle != lane->tail)
            one = leaves_ns(lane) + lane->delay_ns;
        else
            continue;
        if (one < next) next = one;
    }
    return next == UINT64_MAX ? next : (next + GRID_NS - 1) / GRID_NS * GRID_NS;
}

static void move_packets(void)
{
    struct pollfd polls[2 * LINKS_MAX + 1];
    uint64_t turn_ns = 0;
    int at;
    for (;;) {
        uint64_t next = next_ns(), now = now_ns(), wait = next > now ? next - now : 0;
        struct timespec timeout = {wait / S_NS, wait % S_NS};
        for (at = 0; at < lane_count; at++) polls[at] = (struct pollfd){lanes[at].from, POLLIN, 0};
        polls[at] = (struct pollfd){control, POLLIN, 0};
        if (ppoll(polls, lane_count + 1, next == UINT64_MAX ? NULL : &timeout, NULL) < 0 && errno != EINTR)
            fail("poll: %s", strerror(errno));
        now = now_ns();
        if (now < turn_ns + GRID_NS) { /* what comes in this moment is taken together */
            struct timespec rest = {0, turn_ns + GRID_NS - now};
            nanosleep(&rest, NULL);
        }
        turn_ns = now_ns();
        for (at = 0; at < lane_count; at++)
            if (polls[at].revents & POLLIN) take(&lanes[at]);
        now = now_ns();
        for (at = 0; at < lane_count; at++) {
            advance(&lanes[at], now);
            deliver(&lanes[at], now);
        }
        if (polls[lane_count].revents) {
            char order[256];
            ssize_t got = recv(control, order, sizeof order - 1, 0);
            if (got <= 0) return; /* the parent has ended, however */
            order[got] = 0;
            obey(order);
        }
    }
}

/* ---- start ------------------------------------------------------------------------------------------------- */

static int open_tun(int link)
{
    struct ifreq request = {0};
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0) fail("/dev/net/tun: %s", strerror(errno));
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    snprintf(request.ifr_name, sizeof request.ifr_name, "link%d", link);
    if (ioctl(tun, TUNSETIFF, &request) < 0) fail("a TUN device: %s", strerror(errno));
    if (ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0) fail("TSO on a TUN device: %s", strerror(errno));
    return tun;
}

static int run(int counters, int links, uint64_t seed)
{
    struct sched_param urgent = {.sched_priority = 1};
    size_t bytes = 2 * links * sizeof(struct counters);
    struct counters *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, counters, 0);
    int spaces[2], tuns[2][LINKS_MAX], side, link, turn;
    ino_t inodes[2];
    char ready[64];
    if (shared == MAP_FAILED) fail("the counters: %s", strerror(errno));
    for (side = 0; side < 2; side++) {
        struct stat found;
        if (unshare(CLONE_NEWNET) < 0) fail("a network namespace: %s", strerror(errno));
        spaces[side] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (spaces[side] < 0 || fstat(spaces[side], &found) < 0) fail("a network namespace: %s", strerror(errno));
        inodes[side] = found.st_ino;
        for (link = 0; link < links; link++) tuns[side][link] = open_tun(link);
    }
    lane_count = 2 * links;
    for (link = 0; link < lane_count; link++) {
        side = link % 2;
        lanes[link].from = tuns[side][link / 2];
        lanes[link].to = tuns[1 - side][link / 2];
        lanes[link].seed = mix(seed, link);
        lanes[link].count = &shared[link];
    }
    prctl(PR_SET_TIMERSLACK, 1);
    if (sched_setscheduler(0, SCHED_FIFO, &urgent) < 0 && setpriority(PRIO_PROCESS, 0, -20) < 0)
        fail("a higher priority: %s", strerror(errno));
    snprintf(ready, sizeof ready, "ready %d %d", spaces[0], spaces[1]);
    if (send(control, ready, strlen(ready), MSG_NOSIGNAL) < 0) return 1;
    move_packets();
    for (turn = 0; turn < TURNS_MAX && kill_all_in(inodes); turn++) usleep(1000); /* what they started meanwhile */
    return 0;
}

static int enter(const char *space, pid_t parent, char **command)
{
    int fd = open(space, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) {
        fprintf(stderr, "shuttle: %s: %s\n", space, strerror(errno));
        return 126;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) return 126; /* it has ended before it could be noticed */
    execvp(command[0], command);
    fprintf(stderr, "shuttle: %s: %s\n", command[0], strerror(errno));
    return 127;
}

int main(int count, char **words)
{
    if (count > 4 && strcmp(words[1], "enter") == 0) return enter(words[2], atoi(words[3]), words + 4);
    if (count == 6 && strcmp(words[1], "run") == 0) {
        int links = atoi(words[4]);
        control = atoi(words[2]);
        if (links >= 1 && links <= LINKS_MAX) return run(atoi(words[3]), links, strtoull(words[5], NULL, 10));
    }
    fprintf(stderr, "usage: shuttle run CONTROL_FD COUNTERS_FD LINKS SEED\n"
                    "       shuttle enter NAMESPACE PARENT_PID COMMAND ...\n");
    return 2;
}
