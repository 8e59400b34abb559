/* What a program sends over vsock, watched and ended at a byte: LD_PRELOAD="/payload/libsends.so /payload/libpxshim.so".
 *
 * SENDS_DIE=N         the process ends once exactly N bytes have been sent, in the middle of a call if N lies there
 * SENDS_HALF_CLOSE=N  after N bytes the socket is closed for writing, as a peer that only reads on would do
 *
 * At its end a process says on stderr how many bytes its largest call had. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_long sent, most;

static long limit(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : -1;
}

static int is_vsock(int fd) {
    int domain = 0;
    socklen_t length = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_VSOCK;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    static ssize_t (*next)(int, const struct msghdr *, int);
    if (!next) next = (ssize_t (*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
    if (!is_vsock(fd)) return next(fd, message, flags);
    long bytes = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) bytes += (long)message->msg_iov[i].iov_len;
    if (bytes > most) most = bytes;
    long die = limit("SENDS_DIE"), half = limit("SENDS_HALF_CLOSE");
    if (die >= 0 && sent + bytes >= die) {
        /* What is left until then, in calls of one part each. */
        for (size_t i = 0; i < message->msg_iovlen && sent < die; i++) {
            size_t part = message->msg_iov[i].iov_len;
            if (part > (size_t)(die - sent)) part = (size_t)(die - sent);
            struct iovec one = {message->msg_iov[i].iov_base, part};
            struct msghdr cut = {.msg_iov = &one, .msg_iovlen = 1};
            for (ssize_t count; one.iov_len && (count = next(fd, &cut, flags)) > 0;) {
                one.iov_base = (char *)one.iov_base + count;
                one.iov_len -= (size_t)count;
            }
            sent += (long)part;
        }
        fprintf(stderr, "sends died at %ld\n", (long)sent);
        _exit(9);
    }
    if (half >= 0 && sent >= half) shutdown(fd, SHUT_WR);
    ssize_t count = next(fd, message, flags);
    if (count > 0) sent += count;
    return count;
}

__attribute__((destructor)) static void tell(void) {
    fprintf(stderr, "sends most %ld of %ld\n", (long)most, (long)sent);
}
