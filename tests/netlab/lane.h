/*
 * lane: one direction of a link. Packets enter by `take`, leave the bottleneck by `advance`, arrive by `deliver`.
 *
 * The kernel hands over segments of up to 64 KiB (TSO). They are cut into packets on paper: each has its own place
 * in the queue, its own time and its own fate; those that follow each other and are due together are written in one
 * piece again, as a network card would merge them (GRO). One write costs as much as a packet, however long.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *format, ...);

#define FRAME_MAX (65536 + 256)
#define READS_MAX 32       /* from one TUN in a row; the others want their turn */
#define S_NS 1000000000ull
#define VNET sizeof(struct virtio_net_hdr)

struct counters { /* one per lane, shared with the parent, which only reads */
    uint64_t packets, bytes; /* delivered */
    uint64_t dropped, lost, cut;
    uint64_t late_ns, late_ns_max; /* sum over the deliveries, and the worst */
    uint64_t writes;
};

struct frame { /* what was read from a TUN in one piece: virtio header, IP packet, perhaps of many segments */
    uint32_t references, bytes;
    uint32_t head; /* bytes of IP and TCP header, if segmented */
    uint32_t payload; /* bytes in each segment but the last; 0: not segmented */
    uint32_t segments;
    unsigned char data[];
};

struct packet {
    struct frame *frame; /* NULL: lost */
    uint32_t segment, bytes;
    uint64_t ns; /* arrival; once it has left the bottleneck: when it is due */
};

struct lane {
    int from, to; /* TUN descriptors */
    uint64_t seed, rate_bps, delay_ns, loss_ppb, queue_bytes_max;
    int is_cut;
    /* ring[head..middle) is on its way, ring[middle..tail) waits at the bottleneck; indices only grow */
    struct packet *ring;
    uint64_t mask, head, middle, tail;
    uint64_t queue_bytes, free_ns, last_due_ns, number;
    struct counters *count;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * S_NS + t.tv_nsec;
}

/* A number that looks random and is a function of both arguments (the mixer of splitmix64). */
static uint64_t mix(uint64_t seed, uint64_t number)
{
    uint64_t z = seed + (number + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void release(struct frame *frame)
{
    if (frame && --frame->references == 0) free(frame);
}

/* ---- the lane ---------------------------------------------------------------------------------------------- */

static uint64_t serial_ns(const struct lane *lane, uint32_t bytes)
{
    return lane->rate_bps ? bytes * 8 * S_NS / lane->rate_bps : 0;
}

/* When the first packet at the bottleneck will have left it. */
static uint64_t leaves_ns(const struct lane *lane)
{
    const struct packet *first = &lane->ring[lane->middle & lane->mask];
    uint64_t start = first->ns > lane->free_ns ? first->ns : lane->free_ns;
    return start + serial_ns(lane, first->bytes);
}

/* Let through the bottleneck what has left it by now. */
static void advance(struct lane *lane, uint64_t now)
{
    while (lane->middle != lane->tail) {
        uint64_t leaves = leaves_ns(lane), due;
        struct packet *packet = &lane->ring[lane->middle & lane->mask];
        if (leaves > now) return;
        lane->middle++;
        lane->free_ns = leaves;
        lane->queue_bytes -= packet->bytes;
        due = leaves + lane->delay_ns;
        if (due < lane->last_due_ns) due = lane->last_due_ns; /* the delay has become shorter: no overtaking */
        packet->ns = lane->last_due_ns = due;
        if (mix(lane->seed, lane->number++) % S_NS < lane->loss_ppb) {
            release(packet->frame);
            packet->frame = NULL;
            lane->count->lost++;
        }
    }
}

static void grow(struct lane *lane)
{
    uint64_t size = lane->ring ? 2 * (lane->mask + 1) : 1024, at;
    struct packet *ring = malloc(size * sizeof *ring);
    if (!ring) fail("out of memory");
    for (at = lane->head; at != lane->tail; at++) ring[at & (size - 1)] = lane->ring[at & lane->mask];
    free(lane->ring);
    lane->ring = ring;
    lane->mask = size - 1;
}

static void enqueue(struct lane *lane, struct frame *frame, uint64_t now)
{
    uint32_t segment;
    frame->references = 1;
    for (segment = 0; segment < frame->segments; segment++) {
        uint32_t bytes = frame->bytes;
        if (frame->payload) {
            uint32_t left = frame->bytes - frame->head - segment * frame->payload;
            bytes = frame->head + (left < frame->payload ? left : frame->payload);
        }
        if (lane->is_cut) {
            lane->count->cut++;
        } else if (lane->rate_bps && lane->queue_bytes + bytes > lane->queue_bytes_max) {
            lane->count->dropped++;
        } else {
            if (!lane->ring || lane->tail - lane->head > lane->mask) grow(lane);
            lane->ring[lane->tail++ & lane->mask] = (struct packet){frame, segment, bytes, now};
            lane->queue_bytes += bytes;
            frame->references++;
        }
    }
    release(frame);
}

/* Everything in the lane vanishes. */
static void empty(struct lane *lane)
{
    for (; lane->head != lane->tail; lane->head++) {
        struct frame *frame = lane->ring[lane->head & lane->mask].frame;
        if (frame) lane->count->cut++;
        release(frame);
    }
    lane->middle = lane->tail;
    lane->queue_bytes = 0;
}

/* ---- segments ---------------------------------------------------------------------------------------------- */

static uint16_t ip_checksum(const unsigned char *header, uint32_t bytes)
{
    uint32_t sum = 0, at;
    for (at = 0; at < bytes; at += 2)
        if (at != 10) sum += header[at] << 8 | header[at + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

static void put16(unsigned char *at, uint32_t value)
{
    at[0] = value >> 8;
    at[1] = value;
}

/* Fill in segments, head and payload of a frame that was just read. */
static void dissect(struct frame *frame)
{
    const struct virtio_net_hdr *vnet = (const void *)frame->data;
    const unsigned char *ip = frame->data + VNET, *tcp;
    frame->segments = 1;
    frame->head = frame->payload = 0;
    if (vnet->gso_type != VIRTIO_NET_HDR_GSO_TCPV4 || !vnet->gso_size) return;
    tcp = ip + (ip[0] & 15) * 4;
    frame->head = (tcp - ip) + (tcp[12] >> 4) * 4;
    if (frame->bytes <= frame->head) return;
    frame->payload = vnet->gso_size;
    frame->segments = (frame->bytes - frame->head + frame->payload - 1) / frame->payload;
}

/*
 * Write segments first..last of a frame as one packet. The TCP checksum stays what it is: the virtio header says
 * that it is still to be computed, and nobody computes or checks it on the way to a local socket.
 */
static void emit(const struct lane *lane, struct frame *frame, uint32_t first, uint32_t last)
{
    struct iovec parts[2] = {{frame->data, VNET + frame->bytes}, {NULL, 0}};
    unsigned char start[VNET + 128], *ip = start + VNET, *tcp;
    uint32_t end, seq;
    if (first > 0 || last + 1 < frame->segments) {
        struct virtio_net_hdr *vnet = (void *)start;
        memcpy(start, frame->data, VNET + frame->head);
        if (first == last) vnet->gso_type = VIRTIO_NET_HDR_GSO_NONE, vnet->gso_size = 0;
        end = (last + 1) * frame->payload;
        if (end > frame->bytes - frame->head) end = frame->bytes - frame->head;
        parts[0] = (struct iovec){start, VNET + frame->head};
        parts[1].iov_base = frame->data + VNET + frame->head + first * frame->payload;
        parts[1].iov_len = end - first * frame->payload;
        put16(ip + 2, frame->head + parts[1].iov_len);
        put16(ip + 4, (ip[4] << 8 | ip[5]) + first);
        put16(ip + 10, ip_checksum(ip, (ip[0] & 15) * 4));
        tcp = ip + (ip[0] & 15) * 4;
        memcpy(&seq, tcp + 4, 4);
        seq = htonl(ntohl(seq) + first * frame->payload);
        memcpy(tcp + 4, &seq, 4);
        if (last + 1 < frame->segments) tcp[13] &= ~0x09; /* FIN and PSH belong to the last one */
        if (first > 0) tcp[13] &= ~0x80; /* CWR to the first */
    }
    if (writev(lane->to, parts, 2) < 0 && errno != EIO && errno != EAGAIN)
        fail("write to a TUN device: %s", strerror(errno)); /* EIO: the device is not up yet, or no longer */
}

static void deliver(struct lane *lane, uint64_t now)
{
    while (lane->head != lane->middle && lane->ring[lane->head & lane->mask].ns <= now) {
        struct packet *packet = &lane->ring[lane->head & lane->mask];
        struct frame *frame = packet->frame;
        uint32_t first = packet->segment, last = first;
        uint64_t late = now - packet->ns;
        lane->head++;
        if (!frame) continue;
        lane->count->packets++;
        lane->count->bytes += packet->bytes;
        while (lane->head != lane->middle) { /* as long as the next one follows it, and is due too */
            packet = &lane->ring[lane->head & lane->mask];
            if (packet->frame != frame || packet->ns > now || packet->segment != last + 1) break;
            lane->head++;
            last++;
            frame->references--; /* the first one's is left */
            lane->count->packets++;
            lane->count->bytes += packet->bytes;
        }
        emit(lane, frame, first, last);
        release(frame);
        lane->count->writes++;
        lane->count->late_ns += late;
        if (late > lane->count->late_ns_max) lane->count->late_ns_max = late;
    }
}

static void take(struct lane *lane)
{
    static unsigned char buffer[VNET + FRAME_MAX];
    int turn;
    for (turn = 0; turn < READS_MAX; turn++) {
        struct frame *frame;
        uint64_t now;
        ssize_t got = read(lane->from, buffer, sizeof buffer);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got < 0) fail("read from a TUN device: %s", strerror(errno));
        if (got < (ssize_t)VNET + 20) continue; /* not an IP packet */
        frame = malloc(sizeof *frame + got);
        if (!frame) fail("out of memory");
        memcpy(frame->data, buffer, got);
        frame->bytes = got - VNET;
        dissect(frame);
        now = now_ns();
        advance(lane, now);
        enqueue(lane, frame, now);
    }
}
