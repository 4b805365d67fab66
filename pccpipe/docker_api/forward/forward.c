/* forward PORT:HOST:PORT ...   passes TCP connections at each first port on to HOST (four numbers) and the second port.
 * forward check HOST PORT      exits with 0 if that takes a connection, else with 1.
 *
 * A static program without a library, because it runs in any image: it connects the loopback ports of a machine to a
 * service whose network has no way out. One process a connection; the container limits their number.
 * make.sh builds it. */

typedef unsigned long word;

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, POLL = 7, SOCKET = 41, CONNECT = 42, ACCEPT4 = 288, SHUTDOWN = 48, BIND = 49,
       LISTEN = 50, SETSOCKOPT = 54, CLONE = 56, EXIT = 231, SIGACTION = 13 };
static long call(long n, word a, word b, word c, word d, word e) {
  long r;
  register word r10 __asm__("r10") = d;
  register word r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return r;
}
__asm__(".globl _start\n_start: mov %rsp,%rdi\nand $-16,%rsp\ncall begin\n");
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, CLOSE = 57, POLL = 73, SOCKET = 198, CONNECT = 203, ACCEPT4 = 242, SHUTDOWN = 210,
       BIND = 200, LISTEN = 201, SETSOCKOPT = 208, CLONE = 220, EXIT = 94, SIGACTION = 134 };
static long call(long n, word a, word b, word c, word d, word e) {
  register word x8 __asm__("x8") = n;
  register word x0 __asm__("x0") = a;
  register word x1 __asm__("x1") = b;
  register word x2 __asm__("x2") = c;
  register word x3 __asm__("x3") = d;
  register word x4 __asm__("x4") = e;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
__asm__(".globl _start\n_start: mov x0,sp\nbl begin\n");
#endif

enum { INET = 2, STREAM = 1, CLOEXEC = 02000000, SIGCHLD_ = 17, SIGPIPE_ = 13, POLLIN_ = 1, WR = 1, MOST_PORTS = 32 };

struct address { unsigned short family, port; unsigned host; char rest[8]; };
struct watched { int fd; short wanted, got; };

static void leave(int code) { for (;;) call(EXIT, code, 0, 0, 0, 0); }

static unsigned number(const char **at) {
  unsigned n = 0;
  while (**at >= '0' && **at <= '9' && n < 100000) n = n * 10 + (unsigned)(*(*at)++ - '0');
  return n;
}

/* Read HOST, four numbers, in the network's order. */
static unsigned host_of(const char **at) {
  unsigned host = 0;
  for (int i = 0; i < 4; i++) {
    host |= (number(at) & 255) << (8 * i);
    if (**at == '.') ++*at;
  }
  return host;
}

static struct address address_of(unsigned host, unsigned port) {
  struct address a = {INET, (unsigned short)((port << 8) | ((port >> 8) & 255)), host, {0}};
  return a;
}

static int wait_for(struct watched *w, int count) {
#if defined(__x86_64__)
  return (int)call(POLL, (word)w, count, (word)-1, 0, 0);
#else
  return (int)call(POLL, (word)w, count, 0, 0, 0); /* ppoll without a limit */
#endif
}

static int connected(const struct address *to) {
  int fd = (int)call(SOCKET, INET, STREAM | CLOEXEC, 0, 0, 0);
  return fd < 0 || call(CONNECT, fd, (word)to, sizeof *to, 0, 0) < 0 ? -1 : fd;
}

/* Pass bytes on in both directions; an end of one direction is an end for the other side's reading. */
static void pass_on(int one, int other) {
  static char buffer[65536];
  struct watched w[2] = {{one, POLLIN_, 0}, {other, POLLIN_, 0}};
  int open = 2;
  while (open && wait_for(w, 2) >= 0)
    for (int i = 0; i < 2; i++) {
      if (w[i].fd < 0 || !w[i].got) continue;
      int to = i ? one : other;
      long size = call(READ, w[i].fd, (word)buffer, sizeof buffer, 0, 0);
      if (size <= 0) {
        call(SHUTDOWN, to, WR, 0, 0, 0);
        w[i].fd = -1;
        open--;
        if (size < 0) return;
      }
      for (long done = 0, more; done < size; done += more)
        if ((more = call(WRITE, to, (word)(buffer + done), size - done, 0, 0)) <= 0) return;
    }
}

static int listening(unsigned port) {
  int fd = (int)call(SOCKET, INET, STREAM | CLOEXEC, 0, 0, 0), yes = 1;
  struct address a = address_of(0, port);
  call(SETSOCKOPT, fd, 1, 2, (word)&yes, sizeof yes);
  if (fd < 0 || call(BIND, fd, (word)&a, sizeof a, 0, 0) < 0 || call(LISTEN, fd, 512, 0, 0, 0) < 0) leave(2);
  return fd;
}

void begin(long *stack) {
  int count = (int)stack[0] - 1;
  const char **words = (const char **)(stack + 2);
  struct watched w[MOST_PORTS];
  struct address to[MOST_PORTS];
  if (count == 3 && words[0][0] == 'c') {
    unsigned host = host_of(&words[1]);
    struct address a = address_of(host, number(&words[2]));
    leave(connected(&a) < 0);
  }
  if (count < 1 || count > MOST_PORTS) leave(2);
  word ignored[4] = {1, 0, 0, 0}; /* children are reaped, and a broken connection is an error of its write */
  call(SIGACTION, SIGCHLD_, (word)ignored, 0, 8, 0);
  call(SIGACTION, SIGPIPE_, (word)ignored, 0, 8, 0);
  for (int i = 0; i < count; i++) {
    const char *at = words[i];
    unsigned port = number(&at);
    if (*at++ != ':') leave(2);
    unsigned host = host_of(&at);
    if (*at++ != ':') leave(2);
    to[i] = address_of(host, number(&at));
    w[i] = (struct watched){listening(port), POLLIN_, 0};
  }
  while (wait_for(w, count) >= 0 || 1)
    for (int i = 0; i < count; i++) {
      if (!w[i].got) continue;
      int client = (int)call(ACCEPT4, w[i].fd, 0, 0, CLOEXEC, 0);
      if (client < 0) continue;
      if (call(CLONE, SIGCHLD_, 0, 0, 0, 0) == 0) {
        int server = connected(&to[i]);
        if (server >= 0) pass_on(client, server);
        leave(0);
      }
      call(CLOSE, client, 0, 0, 0, 0);
    }
}
