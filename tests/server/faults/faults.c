/* Lets calls that write to the server's state fail, as a full or broken disk would: for tests, by LD_PRELOAD.

   Either the nth call from now on fails (fail_at, called through ctypes; sticky: all that follow too), or all do while a
   file exists whose name is in FAULTS_WHILE and which holds the error's number. Only files with "state.db" in their
   name are meant. unsynced tells whether the log was written to and not synced since. strace -e inject does the same where it may be used; this needs no rights and counts exactly. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long calls_left = -1;
static int failing_with, is_sticky;
static long n_calls;

void fail_at(long n, int error, int sticky) { calls_left = n; failing_with = error; is_sticky = sticky; n_calls = 0; }
long calls_made(void) { return n_calls; }

enum Kind { WRITES, SYNCS, OTHER };
static int is_unsynced;
int unsynced(void) { return is_unsynced; }

static int fails(int fd, enum Kind kind) {
  char link[64], path[4096];
  int saved = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  errno = saved;
  if (n <= 0) return 0;
  path[n] = 0;
  if (!strstr(path, "state.db")) return 0;
  n_calls++;
  if (kind != OTHER && strstr(path, "-wal")) is_unsynced = kind == WRITES;
  const char* file = getenv("FAULTS_WHILE");
  if (file) {
    FILE* asked = fopen(file, "r");
    errno = saved;
    if (!asked) return 0;
    int error = 0;
    if (fscanf(asked, "%d", &error) != 1) error = ENOSPC;
    fclose(asked);
    errno = error;
    return 1;
  }
  if (calls_left < 0) return 0;
  if (calls_left > 1) { calls_left--; return 0; }
  if (calls_left == 0) return 0;
  if (!is_sticky) calls_left = 0;
  errno = failing_with;
  return 1;
}

#define REAL(name) __typeof__(name)* real = (__typeof__(name)*)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void* data, size_t n) { REAL(write); return fails(fd, WRITES) ? -1 : real(fd, data, n); }
ssize_t pwrite(int fd, const void* data, size_t n, off_t at) { REAL(pwrite); return fails(fd, WRITES) ? -1 : real(fd, data, n, at); }
ssize_t pwrite64(int fd, const void* data, size_t n, off64_t at) { REAL(pwrite64); return fails(fd, WRITES) ? -1 : real(fd, data, n, at); }
int fsync(int fd) { REAL(fsync); return fails(fd, SYNCS) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return fails(fd, SYNCS) ? -1 : real(fd); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); return fails(fd, OTHER) ? -1 : real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); return fails(fd, OTHER) ? -1 : real(fd, n); }
int posix_fallocate(int fd, off_t at, off_t n) { REAL(posix_fallocate); return fails(fd, OTHER) ? errno : real(fd, at, n); }
