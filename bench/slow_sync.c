/* Adds 5 ms to every sync of a program that is started with it in LD_PRELOAD, as on a disk that is slower. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void pause_5_ms(void) {
    struct timespec pause = {0, 5000000};
    nanosleep(&pause, 0);
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    pause_5_ms();
    return real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    pause_5_ms();
    return real(file);
}
