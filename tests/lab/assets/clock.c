/*
 * A clock that can be moved, for one lab host. Preloaded into every dynamic program of the host, PID 1 included.
 *
 * The kernel has one wall clock for the whole machine, and no test may touch it. So every program of the host adds an
 * offset, read from a file that all of them have mapped. A program that waits on a wall-clock timer descriptor must
 * notice a jump too: such timers are set again whenever the offset is seen to have changed, and a timer that asks to be
 * cancelled when the clock is set becomes a watch on the offset file, which turns readable in the same way.
 *
 * Not covered: static programs, and times that the kernel itself writes to files.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define OFFSET_FILE "/etc/lab-clock" /* seconds, a native int64, padded to one page */
#define OFFSET_BYTES 4096
#define TIMERS_MAX 8192
#define NEVER ((int64_t)1000000000000) /* systemd sets timers this far away to mean "not at all" */

struct timer {
    unsigned char is_wall_clock;
    unsigned char is_armed;
    int flags;
    struct itimerspec asked;
};

static struct timer timers[TIMERS_MAX];
static volatile int64_t *offset_cell;
static int offset_tried;
static int64_t offset_seen;

static int is_wall_clock(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_REALTIME_ALARM
        || clock == CLOCK_TAI;
}

static int is_known(int fd)
{
    return fd >= 0 && fd < TIMERS_MAX;
}

static int arm(int fd, int64_t offset, struct itimerspec *old)
{
    struct itimerspec real = timers[fd].asked;
    if (real.it_value.tv_sec < NEVER) {
        real.it_value.tv_sec -= offset;
        if (real.it_value.tv_sec < 1)
            real.it_value.tv_sec = 1; /* long past: fires at once; 0 would disarm it */
    }
    return syscall(SYS_timerfd_settime, fd, timers[fd].flags, &real, old);
}

static void map_offset(void)
{
    offset_tried = 1;
    int fd = syscall(SYS_openat, AT_FDCWD, OFFSET_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    void *page = mmap(NULL, OFFSET_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) {
        offset_cell = page;
        offset_seen = *offset_cell;
    }
    syscall(SYS_close, fd);
}

static int64_t current_offset(void)
{
    if (!offset_tried)
        map_offset();
    int64_t offset = offset_cell ? *offset_cell : 0;
    if (offset != offset_seen) {
        offset_seen = offset;
        for (int fd = 0; fd < TIMERS_MAX; fd++)
            if (timers[fd].is_armed)
                arm(fd, offset, NULL);
    }
    return offset;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && is_wall_clock(clock))
        now->tv_sec += current_offset();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    struct timespec spec;
    int result = clock_gettime(CLOCK_REALTIME, &spec);
    if (result == 0) {
        now->tv_sec = spec.tv_sec;
        now->tv_usec = spec.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int timerfd_create(int clock, int flags)
{
    int fd = syscall(SYS_timerfd_create, clock, flags);
    if (is_known(fd)) {
        timers[fd].is_wall_clock = is_wall_clock(clock);
        timers[fd].is_armed = 0;
    }
    return fd;
}

/* Puts a watch on the offset file in the place of a timer; gives 0 when there is no such file. */
static int become_watch(int fd)
{
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch < 0)
        return 0;
    int is_watching = inotify_add_watch(watch, OFFSET_FILE, IN_MODIFY | IN_CLOSE_WRITE) >= 0
        && dup3(watch, fd, O_CLOEXEC) >= 0;
    syscall(SYS_close, watch);
    return is_watching;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
    if (is_known(fd))
        timers[fd].is_armed = 0;
    if ((flags & TFD_TIMER_CANCEL_ON_SET) && become_watch(fd))
        return 0;
    int is_set = new->it_value.tv_sec != 0 || new->it_value.tv_nsec != 0;
    if (is_known(fd) && timers[fd].is_wall_clock && (flags & TFD_TIMER_ABSTIME) && is_set) {
        int64_t offset = current_offset();
        timers[fd].flags = flags;
        timers[fd].asked = *new;
        timers[fd].is_armed = 1;
        return arm(fd, offset, old);
    }
    return syscall(SYS_timerfd_settime, fd, flags, new, old);
}

int close(int fd)
{
    if (is_known(fd))
        timers[fd].is_armed = 0;
    return syscall(SYS_close, fd);
}

/* "Now" as a file time is taken by the kernel from its own clock, so it is spelled out. */
static const struct timespec *spelled_out(const struct timespec asked[2], struct timespec out[2])
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < 2; i++)
        out[i] = !asked || asked[i].tv_nsec == UTIME_NOW ? now : asked[i];
    return out;
}

int futimens(int fd, const struct timespec times[2])
{
    struct timespec out[2];
    return syscall(SYS_utimensat, fd, NULL, spelled_out(times, out), 0);
}

int utimensat(int directory, const char *path, const struct timespec times[2], int flags)
{
    struct timespec out[2];
    return syscall(SYS_utimensat, directory, path, spelled_out(times, out), flags);
}
