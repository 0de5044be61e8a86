/* Counts what a program and its children do to some files, and lets one of it go wrong.

   SHIM_FOLDER   how the paths of these files begin
   SHIM_COUNTER  a file of 8 bytes, shared by all processes
   SHIM_AT       the number of the operation from which on things go wrong, counted from 1
   SHIM_ERRNO    what then fails with: an errno; 0 kills the whole process group instead */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum { OPENS = 1, WRITES = 2, CHANGES = 4, LOCKS = 8 };

static atomic_long *counter;
static const char *folder;
static long at;
static int error;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHIM_COUNTER");
    folder = getenv("SHIM_FOLDER");
    if (!path || !folder) return;
    at = atol(getenv("SHIM_AT"));
    error = atoi(getenv("SHIM_ERRNO"));
    int fd = REAL(open64)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *memory = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED) counter = memory;
}

/* Whether an operation of this kind fails with the error: a full disk still removes files. */
static int meets(int kind) {
    switch (error) {
        case ENOSPC: case EDQUOT: return kind & (WRITES | CHANGES);
        case EFBIG: return kind & WRITES;
        case EMFILE: case ENFILE: return kind & OPENS;
        case ENOLCK: case EOPNOTSUPP: case ENOSYS: return kind & LOCKS;
        default: return 1;
    }
}

static int fails(const char *path, int kind) {
    if (!counter || !path) return 0;
    char whole[PATH_MAX];
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole)) return 0;
        strncat(whole, "/", sizeof whole - strlen(whole) - 1);
        strncat(whole, path, sizeof whole - strlen(whole) - 1);
        path = whole;
    }
    if (strncmp(path, folder, strlen(folder))) return 0;
    long n = atomic_fetch_add(counter, 1) + 1;
    if (!at || n < at) return 0;
    if (!error) {
        kill(0, SIGKILL);
        for (;;) pause();
    }
    if (!meets(kind)) return 0;
    errno = error;
    return 1;
}

static int fd_fails(int fd, int kind) {
    if (!counter) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    if (path[0] != '/') return 0; /* a socket or a pipe */
    return fails(path, kind);
}

#define MODE(flags, mode)                       \
    mode_t mode = 0;                            \
    if ((flags) & (O_CREAT | O_TMPFILE)) {      \
        va_list rest;                           \
        va_start(rest, flags);                  \
        mode = va_arg(rest, mode_t);            \
        va_end(rest);                           \
    }

#define OPEN(name)                                                                      \
    int name(const char *path, int flags, ...) {                                        \
        MODE(flags, mode)                                                               \
        int kind = (flags & O_ACCMODE) == O_RDONLY ? OPENS : OPENS | CHANGES;           \
        if (((kind & CHANGES) || error == EMFILE) && fails(path, kind)) return -1;      \
        return REAL(name)(path, flags, mode);                                           \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                    \
    int name(int at_fd, const char *path, int flags, ...) {                             \
        MODE(flags, mode)                                                               \
        int kind = (flags & O_ACCMODE) == O_RDONLY ? OPENS : OPENS | CHANGES;           \
        if (((kind & CHANGES) || error == EMFILE) && fails(path, kind)) return -1;      \
        return REAL(name)(at_fd, path, flags, mode);                                    \
    }
OPENAT(openat)
OPENAT(openat64)

#define ON_FD(result, name, kind, parameters, arguments)                                \
    result name parameters { return fd_fails(fd, kind) ? -1 : REAL(name) arguments; }
ON_FD(ssize_t, write, WRITES, (int fd, const void *data, size_t n), (fd, data, n))
ON_FD(ssize_t, pwrite64, WRITES, (int fd, const void *data, size_t n, off64_t place), (fd, data, n, place))
ON_FD(int, ftruncate64, CHANGES, (int fd, off64_t size), (fd, size))
ON_FD(int, fsync, CHANGES, (int fd), (fd))
ON_FD(int, fdatasync, CHANGES, (int fd), (fd))
ON_FD(ssize_t, sendfile64, WRITES, (int fd, int from, off64_t *place, size_t n), (fd, from, place, n))

/* Locks are no operations of a disk: they count only where it has none. */
static int is_without_locks(int fd) {
    return (error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS) && fd_fails(fd, LOCKS);
}

int flock(int fd, int operation) { return is_without_locks(fd) ? -1 : REAL(flock)(fd, operation); }

#define FCNTL(name)                                                                     \
    int name(int fd, int command, ...) {                                                \
        va_list rest;                                                                   \
        va_start(rest, command);                                                        \
        void *argument = va_arg(rest, void *);                                          \
        va_end(rest);                                                                   \
        int locks = command == F_SETLK || command == F_SETLKW ||                        \
            command == F_OFD_SETLK || command == F_OFD_SETLKW;                          \
        return locks && is_without_locks(fd) ? -1 : REAL(name)(fd, command, argument);  \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

#define ON_PATH(name, kind, parameters, arguments)                                      \
    int name parameters { return fails(path, kind) ? -1 : REAL(name) arguments; }
ON_PATH(mkdir, CHANGES, (const char *path, mode_t mode), (path, mode))
ON_PATH(rename, CHANGES, (const char *path, const char *to), (path, to))
ON_PATH(unlink, 0, (const char *path), (path))
ON_PATH(rmdir, 0, (const char *path), (path))
