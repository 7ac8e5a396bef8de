#!/bin/bash
# Subject: Linux seccomp user notification, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV; seen on Linux 6.18 (x86_64); needs 5.19 or later.
# Expected: with that flag only a fatal signal ends the wait of a call that a supervisor is notified of, so that bind(2), which
#   never fails with EINTR, does not do so under a supervisor either.
# Seen: that holds from the moment on at which the supervisor has received the notification. A signal that comes before fails
#   the call with EINTR, unless its handler has SA_RESTART.
# How: a process binds while a timer's signal comes after 10 ms; its supervisor receives the notification at once, and then late.
# Why: a supervisor should receive before it does anything else, on a thread that is never busy, and a server with a timer and
#   without SA_RESTART (Go sets it) may have to repeat bind.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/bind.c" <<'EOF'
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static int listener;
static int late; /* milliseconds until the notification is received */

static void *supervise(void *none) {
    for (;;) {
        struct seccomp_notif told = {0};
        struct seccomp_notif_resp answer = {0};
        usleep(late * 1000);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &told))
            continue;
        usleep((20 - late) * 1000);
        answer.id = told.id;
        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    return none;
}

static void ignore(int signal) { (void)signal; }

int main(int count, char **words) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bind, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};
    struct sigaction action = {.sa_handler = ignore};
    struct itimerval soon = {{0, 0}, {0, 10000}};
    struct sockaddr_in any = {.sin_family = AF_INET};
    pthread_t thread;
    late = count > 1 ? 20 : 0;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                       SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    sigaction(SIGALRM, &action, NULL);
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    pthread_create(&thread, NULL, supervise, NULL);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    usleep(5000);
    setitimer(ITIMER_REAL, &soon, NULL);
    int result = bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&any, sizeof any);
    printf("%s: bind %s\n", words[count - 1], result ? strerror(errno) : "succeeds");
    return 0;
}
EOF
gcc -pthread -o "$folder/bind" "$folder/bind.c"
cd "$folder"
after=$(exec -a "a signal after the notification was received" ./bind)
before=$(./bind "a signal before it is received")
printf '%s\n' "$after" "$before"
case "$after/$before" in
    *succeeds/*"Interrupted system call") echo ok ;;
    *) echo "changed: after $after, before $before"; exit 1 ;;
esac
