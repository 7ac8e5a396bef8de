// Answers each request with its pid, over kept connections or not, with one thread and epoll; /compute after 200 ms of
// work. With REUSEPORT set, it listens with SO_REUSEPORT.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void check(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static double seconds(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void compute(void)
{
	double until = seconds() + 0.2;
	while (seconds() < until)
		;
}

int main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
	check(listener, "socket");
	if (getenv("REUSEPORT"))
		check(setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one), "SO_REUSEPORT");
	check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
	check(listen(listener, 4096), "listen");
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[64];
	check(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event), "epoll_ctl");
	char body[16], kept[128], closed[128], request[4096];
	int length = sprintf(body, "%d\n", getpid());
	sprintf(kept, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, body);
	sprintf(closed, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", length, body);
	for (;;) {
		int count = epoll_wait(epoll, ready, 64, -1);
		for (int i = 0; i < count; i++) {
			int fd = ready[i].data.fd;
			if (fd == listener) {
				while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
					event.data.fd = fd;
					check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
				}
				continue;
			}
			ssize_t got = read(fd, request, sizeof request - 1);
			if (got <= 0) {
				close(fd);
				continue;
			}
			request[got] = 0;
			if (!strncmp(request, "GET /compute ", 13))
				compute();
			int last = strstr(request, "Connection: close") != NULL;
			const char *answer = last ? closed : kept;
			if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0 || last)
				close(fd);
		}
	}
}
