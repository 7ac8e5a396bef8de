// Clients of one server on 127.0.0.1, which answers with its pid. What was seen is printed as one line of JSON.
//
//     load closed PORT CLIENTS SECONDS    so many at a time, each with a connection for every request
//     load kept PORT CLIENTS SECONDS      so many, each with one connection, which asks again once it was answered
//     load open PORT RATE SECONDS         so many a second, each with a connection, whether others were answered or not
//
// The time of an answer counts from when the client was to begin. Clients that have no answer 10 s after the last began
// are lost.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 10
#define FDS 65536
#define SERVERS 64
#define SAMPLES 4000000

static const char ONCE[] = "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
static const char AGAIN[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

static struct client {
	int open, asked, pid, known;
	int64_t since;
} clients[FDS];
static struct {
	int pid;
	long answers, connections;
} servers[SERVERS];
static int32_t *samples;
static long answered, lost, open_now;
static int epoll, kept;
static struct sockaddr_in address = {.sin_family = AF_INET};

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void ask(int fd)
{
	const char *request = kept ? AGAIN : ONCE;
	if (send(fd, request, strlen(request), MSG_NOSIGNAL) > 0)
		clients[fd].asked = 1;
}

static void begin(int64_t since)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0 || fd >= FDS)
		fail("socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
		fail("connect");
	clients[fd] = (struct client){.open = 1, .since = since};
	open_now++;
	// Over loopback it is there at once.
	ask(fd);
	struct epoll_event event = {.events = EPOLLIN | (clients[fd].asked ? 0 : EPOLLOUT), .data.fd = fd};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
}

static void count(struct client *client)
{
	int i = 0;
	while (servers[i].pid && servers[i].pid != client->pid)
		if (++i == SERVERS)
			fail("too many servers");
	servers[i].pid = client->pid;
	servers[i].answers++;
	servers[i].connections += !client->known;
	client->known = 1;
	if (answered < SAMPLES)
		samples[answered] = (now() - client->since) / 1000;
	answered++;
}

static void end(int fd)
{
	close(fd);
	clients[fd].open = 0;
	open_now--;
}

// Returns whether the client has its answer.
static int hear(int fd, uint32_t events)
{
	struct client *client = &clients[fd];
	char answer[1024];
	if (!client->asked && !(events & (EPOLLERR | EPOLLHUP))) {
		ask(fd);
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
		epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
		return 0;
	}
	ssize_t got = read(fd, answer, sizeof answer - 1);
	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got > 0) {
		answer[got] = 0;
		char *body = strstr(answer, "\r\n\r\n");
		client->pid = body ? atoi(body + 4) : 0;
		// Without a connection to keep, the server closes.
		if (!kept)
			return 0;
	} else if (kept || !client->pid) {
		lost++;
		end(fd);
		return 1;
	}
	if (client->pid)
		count(client);
	if (!kept)
		end(fd);
	return 1;
}

static int by_size(const void *a, const void *b)
{
	return *(int32_t *)a - *(int32_t *)b;
}

static double quantile(double share)
{
	long seen = answered < SAMPLES ? answered : SAMPLES;
	return seen ? samples[(long)(share * (seen - 1))] / 1000.0 : 0;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	int is_open = !strcmp(argv[1], "open"), number = atoi(argv[3]);
	double seconds = atof(argv[4]);
	kept = !strcmp(argv[1], "kept");
	address.sin_port = htons(atoi(argv[2]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	struct rlimit files = {FDS, FDS};
	setrlimit(RLIMIT_NOFILE, &files);
	samples = malloc(SAMPLES * sizeof *samples);
	epoll = epoll_create1(0);
	struct epoll_event ready[256];
	int64_t start = now(), over = start + seconds * 1e9, next = start;
	long begun = 0;
	for (int i = 0; !is_open && i < number; i++)
		begin(start);
	while (now() < over || open_now) {
		if (now() > over + PATIENCE * 1000000000LL)
			break;
		struct timespec wait = {1, 0};
		if (is_open) {
			while (next <= now() && next < over) {
				begin(next);
				next = start + ++begun * 1000000000LL / number;
			}
			int64_t left = next - now();
			wait.tv_sec = 0;
			wait.tv_nsec = next >= over ? 100000000 : left < 0 ? 0 : left;
		}
		int found = epoll_pwait2(epoll, ready, 256, &wait, NULL);
		for (int i = 0; i < found; i++) {
			int fd = ready[i].data.fd;
			if (!clients[fd].open || !hear(fd, ready[i].events) || is_open)
				continue;
			if (now() >= over) {
				if (clients[fd].open)
					end(fd);
			} else if (kept && clients[fd].open) {
				clients[fd].since = now();
				ask(fd);
			} else {
				begin(now());
			}
		}
	}
	double took = (now() - start) / 1e9;
	lost += open_now;
	long late = 0;
	for (long i = 0; i < answered && i < SAMPLES; i++)
		late += samples[i] >= 300000;
	qsort(samples, answered < SAMPLES ? answered : SAMPLES, sizeof *samples, by_size);
	printf("{\"answered\": %ld, \"lost\": %ld, \"late\": %ld, \"seconds\": %.6f, ", answered, lost, late, took);
	printf("\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f, \"servers\": {", quantile(0.5), quantile(0.99), quantile(1));
	for (int i = 0; i < SERVERS && servers[i].pid; i++)
		printf("%s\"%d\": %ld", i ? ", " : "", servers[i].pid, servers[i].answers);
	printf("}, \"connections\": {");
	for (int i = 0; i < SERVERS && servers[i].pid; i++)
		printf("%s\"%d\": %ld", i ? ", " : "", servers[i].pid, servers[i].connections);
	printf("}}\n");
}
