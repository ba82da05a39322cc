/*
 * A library for LD_PRELOAD that keeps, beside a database of SQLite, what a loss of power would leave of it.
 *
 * Writes go to the files, so that the process reads what it wrote. fsync and fdatasync of a file copy what was written
 * since the last one to a file of the same name in another folder. After the process was killed, that folder has exactly
 * what was synced, and a test puts it in the place of the database.
 *
 *   POWER_LOSS_DATABASE  path of the database, whose files are followed: itself, -wal and -journal
 *   POWER_LOSS_DURABLE   folder for what is durable
 *   POWER_LOSS_LIES      when set, fsync and fdatasync report success and do nothing, as with `synchronous=OFF`
 *
 * The shared memory (-shm) is not followed: SQLite makes it anew. A file that was never synced does not exist after
 * the loss. The real calls are made by syscall(), so that nothing has to be looked up before the first of them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILES = 8, DESCRIPTORS = 65536, SYNC_MICROSECONDS = 1000 };

/* A write of `length` bytes at `offset`, or, with a negative length, a truncation to `offset`. */
struct change {
    off_t offset;
    ssize_t length;
};

struct file {
    char path[PATH_MAX];
    struct change *changes; /* since the last sync */
    size_t count, room;
};

static struct file files[FILES];
static struct file *opened[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void stop(const char *why) {
    fprintf(stderr, "power_loss: %s\n", why);
    abort();
}

static struct file *file_of(int fd) {
    return fd >= 0 && fd < DESCRIPTORS ? __atomic_load_n(&opened[fd], __ATOMIC_ACQUIRE) : NULL;
}

static int followed(const char *path) {
    const char *database = getenv("POWER_LOSS_DATABASE");
    size_t length = database ? strlen(database) : 0;
    if (!length || strncmp(path, database, length)) return 0;
    return !path[length] || !strcmp(path + length, "-wal") || !strcmp(path + length, "-journal");
}

static void note(struct file *file, off_t offset, ssize_t length) {
    pthread_mutex_lock(&lock);
    if (file->count == file->room) {
        file->room = file->room ? 2 * file->room : 64;
        file->changes = realloc(file->changes, file->room * sizeof *file->changes);
        if (!file->changes) stop("no memory");
    }
    file->changes[file->count++] = (struct change){offset, length};
    pthread_mutex_unlock(&lock);
}

static int opens(int fd, const char *path, int flags) {
    struct stat stat;
    if (fd < 0 || !followed(path) || fstat(fd, &stat) || !S_ISREG(stat.st_mode)) return fd;
    if (fd >= DESCRIPTORS) stop("too many descriptors");
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < FILES && files[i].path[0] && strcmp(files[i].path, path)) i++;
    if (i == FILES || strlen(path) >= PATH_MAX) stop("too many files");
    strcpy(files[i].path, path);
    __atomic_store_n(&opened[fd], &files[i], __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    if (flags & O_TRUNC) note(&files[i], 0, -1);
    return fd;
}

static void copy(int from, int to, off_t offset, size_t length) {
    static char bytes[65536]; /* protected by `lock` */
    while (length) {
        ssize_t n = syscall(SYS_pread64, from, bytes, length < sizeof bytes ? length : sizeof bytes, offset);
        if (n < 0) stop("a followed file cannot be read");
        if (n == 0) return; /* truncated since */
        if (syscall(SYS_pwrite64, to, bytes, n, offset) != n) stop("a durable file cannot be written");
        offset += n;
        length -= n;
    }
}

/*
 * The lock is held to the end: a sync may return only when what was written before it is durable. The file is read by the
 * descriptor of the caller, because closing another one would release the POSIX locks of the process on the file.
 */
static int sync_file(struct file *file, int from) {
    if (getenv("POWER_LOSS_LIES")) return 0;
    usleep(SYNC_MICROSECONDS);
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s%s", getenv("POWER_LOSS_DURABLE"), strrchr(file->path, '/'));
    pthread_mutex_lock(&lock);
    int to = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (to < 0) stop("a durable file cannot be opened");
    for (size_t i = 0; i < file->count; i++) {
        struct change change = file->changes[i];
        if (change.length >= 0) copy(from, to, change.offset, change.length);
        else if (syscall(SYS_ftruncate, to, change.offset)) stop("a durable file cannot be truncated");
    }
    file->count = 0;
    syscall(SYS_close, to);
    pthread_mutex_unlock(&lock);
    return 0;
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                                                                        \
    int name(const char *path, int flags, ...) {                                          \
        va_list arguments;                                                                \
        va_start(arguments, flags);                                                       \
        mode_t mode = mode_of(flags, arguments);                                          \
        va_end(arguments);                                                                \
        return opens(syscall(SYS_openat, AT_FDCWD, path, flags, mode), path, flags);      \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                      \
    int name(int folder, const char *path, int flags, ...) {                              \
        va_list arguments;                                                                \
        va_start(arguments, flags);                                                       \
        mode_t mode = mode_of(flags, arguments);                                          \
        va_end(arguments);                                                                \
        return opens(syscall(SYS_openat, folder, path, flags, mode), path, flags);        \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    if (file_of(fd)) __atomic_store_n(&opened[fd], NULL, __ATOMIC_RELEASE);
    return syscall(SYS_close, fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    ssize_t n = syscall(SYS_write, fd, bytes, length);
    struct file *file = n > 0 ? file_of(fd) : NULL;
    if (file) note(file, lseek(fd, 0, SEEK_CUR) - n, n);
    return n;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t n = syscall(SYS_writev, fd, parts, count);
    struct file *file = n > 0 ? file_of(fd) : NULL;
    if (file) note(file, lseek(fd, 0, SEEK_CUR) - n, n);
    return n;
}

#define PWRITE(name)                                                                      \
    ssize_t name(int fd, const void *bytes, size_t length, off_t offset) {                \
        ssize_t n = syscall(SYS_pwrite64, fd, bytes, length, offset);                     \
        struct file *file = n > 0 ? file_of(fd) : NULL;                                   \
        if (file) note(file, offset, n);                                                  \
        return n;                                                                         \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define FTRUNCATE(name)                                                                   \
    int name(int fd, off_t size) {                                                        \
        int result = syscall(SYS_ftruncate, fd, size);                                    \
        struct file *file = result == 0 ? file_of(fd) : NULL;                             \
        if (file) note(file, size, -1);                                                   \
        return result;                                                                    \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

int fsync(int fd) {
    struct file *file = file_of(fd);
    return file ? sync_file(file, fd) : syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    struct file *file = file_of(fd);
    return file ? sync_file(file, fd) : syscall(SYS_fdatasync, fd);
}

/* A removal is durable at once: after an orderly end SQLite removes the log, which then has nothing that is needed. */
int unlink(const char *path) {
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0 && followed(path) && !getenv("POWER_LOSS_LIES")) {
        char durable[2 * PATH_MAX];
        snprintf(durable, sizeof durable, "%s%s", getenv("POWER_LOSS_DURABLE"), strrchr(path, '/'));
        syscall(SYS_unlinkat, AT_FDCWD, durable, 0);
        pthread_mutex_lock(&lock);
        for (int i = 0; i < FILES; i++)
            if (!strcmp(files[i].path, path)) files[i].count = 0;
        pthread_mutex_unlock(&lock);
    }
    return result;
}
