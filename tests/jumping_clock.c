/* Preloaded into a command: the time of day jumps by up to a day, forward and back, several times a second. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t NANOSECONDS_OF_A_JUMP = 100000000;
static const int64_t JUMPS[] = {0, 3600, -3600, 86400, -86400, 7, -7};

static int64_t jump(void) {
  struct timespec steady;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &steady);
  const int64_t now = steady.tv_sec * 1000000000 + steady.tv_nsec;
  return JUMPS[(uint64_t)(now / NANOSECONDS_OF_A_JUMP) * 2654435761u % (sizeof JUMPS / sizeof *JUMPS)];
}

int clock_gettime(clockid_t clock, struct timespec* time) {
  const int status = (int)syscall(SYS_clock_gettime, clock, time);
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) { time->tv_sec += jump(); }
  return status;
}

int gettimeofday(struct timeval* restrict time, void* restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* also) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (also) { *also = now.tv_sec; }
  return now.tv_sec;
}
