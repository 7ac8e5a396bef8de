#!/usr/bin/env python3
"""What happens to clients of 1, 10 or 1,000 machines behind one balancer while a machine is rolled: a simulation.

    benches/scale.py [--quick] [--seed N]      (prints Markdown; docs/scale.md explains it)

It starts no clusterd and opens no socket. Each machine works as clusterd does with workers that serve one connection at a
time: a connection goes to an idle worker, or waits in a bounded queue, first come, first served. It knows nothing of networks,
of keep-alive, or of how busy a processor is, but for what is said at `Machine.stretch`.
"""

import argparse
import heapq
import random
from collections import deque

WORKERS = 4
LOAD = 0.7
# clusterd's --queue and --backlog, as they are by default. What comes beyond is dropped by the kernel, and comes again.
QUEUE = 1024 + 511
# TCP sends the first packet again after a second; balancers wait about as long for a machine that does not answer.
AGAIN = 1.0
# How many machines a balancer tries that refuse at once (HAProxy's `retries`).
TRIES = 3
# How long the balancer takes to see that a machine leaves: its probes, or the way of an endpoint through a control plane.
NOTICED = 2.0
# How long a worker takes to start, and for how long the first of a reload is watched (--min-uptime).
START, MIN_UPTIME = 2.0, 1.0
# How long a machine is away: the image is fetched, the program starts, the balancer finds it ready.
AWAY = 12.0
# From the beginning of a roll on, whoever comes within this is counted.
WINDOW = 20.0
WARM_UP = 4.0

# Service times: most are exponential, some have a heavy tail (Pareto, bounded).
SHORT, TAIL_SHARE = 0.060, 0.05
TAIL_ALPHA, TAIL_MIN, TAIL_MAX = 1.3, 0.2, 10.0


def tail_mean():
    low, high, alpha = TAIL_MIN, TAIL_MAX, TAIL_ALPHA
    scale = low**alpha / (1 - (low / high) ** alpha)
    return scale * alpha / (alpha - 1) * (low ** (1 - alpha) - high ** (1 - alpha))


MEAN = (1 - TAIL_SHARE) * SHORT + TAIL_SHARE * tail_mean()


def service_time(chance):
    if chance.random() >= TAIL_SHARE:
        return chance.expovariate(1 / SHORT)
    cut = 1 - (TAIL_MIN / TAIL_MAX) ** TAIL_ALPHA
    return TAIL_MIN / (1 - chance.random() * cut) ** (1 / TAIL_ALPHA)


class Connection:
    __slots__ = ("came", "began", "needs", "machine")

    def __init__(self, came, needs):
        self.came, self.needs = came, needs
        self.began = self.machine = None


class Machine:
    """One clusterd. `serves` is a connection a worker, or None; `idle` are the workers without one."""

    def __init__(self, number):
        self.number = number
        self.serves = [None] * WORKERS
        self.idle = list(range(WORKERS))
        self.waiting = deque()
        self.open = 0
        self.is_up = self.accepts = True
        self.refuses = False
        self.starting = self.leaving = 0

    def stretch(self):
        """There is a core for each worker. One that starts takes a core, and so does one that still serves while its
        successor does: everything that begins meanwhile takes longer by that."""
        return (WORKERS + self.starting + self.leaving) / WORKERS


class LeastConnections:
    """The machine with the fewest open connections; among equals, any. Machines are kept by that number."""

    def __init__(self, chance):
        self.chance, self.levels, self.place, self.least = chance, [[]], {}, 0

    def add(self, machine):
        level = machine.open
        while len(self.levels) <= level:
            self.levels.append([])
        self.place[machine] = (level, len(self.levels[level]))
        self.levels[level].append(machine)
        self.least = min(self.least, level)

    def remove(self, machine):
        level, at = self.place.pop(machine)
        last = self.levels[level].pop()
        if last is not machine:
            self.levels[level][at] = last
            self.place[last] = (level, at)

    def changed(self, machine):
        if machine in self.place:
            self.remove(machine)
            self.add(machine)

    def pick(self):
        if not self.place:
            return None
        while not self.levels[self.least]:
            self.least += 1
        level = self.levels[self.least]
        return level[int(self.chance.random() * len(level))]

    def pick_another(self, tried):
        for machine in tried:
            self.remove(machine)
        other = self.pick()
        for machine in tried:
            self.add(machine)
        return other


class Listed:
    """Machines in a list, in no order that matters."""

    def __init__(self, chance):
        self.chance, self.machines, self.turn = chance, [], 0

    def add(self, machine):
        self.machines.append(machine)

    def remove(self, machine):
        self.machines.remove(machine)

    def changed(self, machine):
        pass

    def pick_another(self, tried):
        if len(tried) >= len(self.machines):
            return None
        while (machine := self.pick()) in tried:
            pass
        return machine


class TwoChoices(Listed):
    """The one with fewer open connections, of two that chance picks."""

    def pick(self):
        count = len(self.machines)
        if count == 0:
            return None
        first, second = (self.machines[int(self.chance.random() * count)] for _ in range(2))
        return first if first.open <= second.open else second


class RoundRobin(Listed):
    def pick(self):
        if not self.machines:
            return None
        self.turn = (self.turn + 1) % len(self.machines)
        return self.machines[self.turn]


BALANCERS = {"least connections": LeastConnections, "two choices": TwoChoices, "round robin": RoundRobin}


class Simulation:
    def __init__(self, count, balancer, seed, service_time=service_time):
        self.chance = random.Random(seed)
        self.service_time = service_time
        self.now, self.events, self.order = 0.0, [], 0
        self.balancer = BALANCERS[balancer](self.chance)
        self.machines = [Machine(number) for number in range(count)]
        for machine in self.machines:
            self.balancer.add(machine)
        self.took, self.waited, self.lost, self.again = [], [], 0, 0

    def after(self, seconds, act, *arguments):
        self.order += 1
        heapq.heappush(self.events, (self.now + seconds, self.order, act, arguments))

    def run(self, rate, scenario, at_once):
        """Clients come until the window ends; then all are served that are there."""
        end = WARM_UP + WINDOW
        # Not neighbours, which would be next to each other's turn.
        rolled = self.machines[:: len(self.machines) // at_once][:at_once]
        self.after(WARM_UP, scenario, self, rolled)
        coming = self.chance.expovariate(rate)
        while self.events or coming < end:
            if coming < end and (not self.events or coming < self.events[0][0]):
                self.now = coming
                self.connect(Connection(coming, self.service_time(self.chance)))
                coming += self.chance.expovariate(rate)
            else:
                self.now, _, act, arguments = heapq.heappop(self.events)
                act(*arguments)

    # One connection.

    def connect(self, connection):
        machine = self.balancer.pick()
        if machine is not None and machine.refuses:
            machine = self.another(machine)
        if machine is None:
            self.retry(connection)
            return
        machine.open += 1
        self.balancer.changed(machine)
        if not (machine.is_up and machine.accepts or machine.refuses) or len(machine.waiting) >= QUEUE:
            # Nobody answers. The balancer counts it as open until it gives up.
            self.after(AGAIN, self.give_up, connection, machine)
            self.again += 1
        elif machine.refuses:
            self.closed(machine)
            self.lost += 1
        elif machine.idle:
            self.begin(machine, machine.idle.pop(), connection)
        else:
            machine.waiting.append(connection)

    def another(self, machine):
        """Who does not refuse, if few tries find somebody."""
        tried = []
        while machine is not None and machine.refuses and len(tried) < TRIES:
            tried.append(machine)
            self.again += 1
            machine = self.balancer.pick_another(tried)
        return machine

    def retry(self, connection):
        self.again += 1
        self.after(AGAIN, self.connect, connection)

    def give_up(self, connection, machine):
        self.closed(machine)
        self.connect(connection)

    def begin(self, machine, worker, connection):
        machine.serves[worker] = connection
        connection.began, connection.machine = self.now, machine
        self.after(connection.needs * machine.stretch(), self.end, machine, worker, connection)

    def end(self, machine, worker, connection):
        if connection.machine is None:
            return
        self.count(connection)
        self.closed(machine)
        if machine.serves[worker] is not connection:
            # Its worker has a successor already.
            machine.leaving -= 1
            return
        machine.serves[worker] = None
        self.free(machine, worker)

    def free(self, machine, worker):
        if machine.waiting:
            self.begin(machine, worker, machine.waiting.popleft())
        else:
            machine.idle.append(worker)

    def closed(self, machine):
        machine.open -= 1
        self.balancer.changed(machine)

    def count(self, connection):
        if connection.came >= WARM_UP:
            self.took.append(self.now - connection.came)
            self.waited.append(connection.began - connection.came)

    # What is done to a machine.

    def replace(self, machine, workers):
        """New workers are ready: those whose places they take get nothing more, and end what they have."""
        for worker in workers:
            if machine.serves[worker] is None:
                continue
            machine.serves[worker] = None
            machine.leaving += 1
            self.free(machine, worker)

    def reload(self, machine, workers=None):
        """One worker first, which has to stay; then half of them at a time, and two at least."""
        is_first = workers is None
        left = list(range(WORKERS)) if is_first else workers
        if not left:
            return
        batch = left[:1] if is_first else left[: max(2, WORKERS // 2)]
        machine.starting = len(batch)

        def ready():
            machine.starting = 0
            self.after(MIN_UPTIME if is_first else 0, done)

        def done():
            self.replace(machine, batch)
            self.reload(machine, left[len(batch) :])

        self.after(START, ready)

    def leave(self, machine):
        """The balancer sends nobody any more."""
        self.balancer.remove(machine)

    def back(self, machine):
        self.balancer.add(Machine(machine.number))

    def lose(self, machine):
        """Whatever is in it is gone."""
        machine.is_up = False
        for connection in [*filter(None, machine.serves), *machine.waiting]:
            connection.machine = None
            self.lost += 1
            machine.open -= 1
        machine.serves, machine.waiting = [None] * WORKERS, deque()
        self.balancer.changed(machine)


def steady(_simulation, _machines):
    pass


def reloaded(simulation, machines):
    for machine in machines:
        simulation.reload(machine)


def taken_out(simulation, machines):
    """`/readyz` fails, clients are accepted until the balancer has noticed, and are served to the end."""
    for machine in machines:
        simulation.after(NOTICED, simulation.leave, machine)
        simulation.after(NOTICED + AWAY, simulation.back, machine)


def taken_out_at_once(simulation, machines):
    """The same, but clients are kept out at once, as on a TERM without a delay."""
    for machine in machines:
        machine.accepts = False
    taken_out(simulation, machines)


def surged(simulation, machines):
    """A machine more comes first, and goes into the place of the other."""
    for machine in machines:
        simulation.balancer.add(Machine(-1 - machine.number))
        simulation.after(NOTICED, simulation.leave, machine)


def killed(simulation, machines):
    """It answers nobody any more, and the balancer has yet to notice."""
    for machine in machines:
        simulation.lose(machine)
    taken_out(simulation, machines)


def refusing(simulation, machines):
    """Its program is gone and its kernel is not: whoever comes is refused, at once."""
    for machine in machines:
        machine.refuses = True
    killed(simulation, machines)


SCENARIOS = {
    "nothing": steady,
    "reload in place": reloaded,
    "replaced, one more first": surged,
    "taken out, with a delay": taken_out,
    "taken out, no delay": taken_out_at_once,
    "gone, no answer": killed,
    "gone, refuses": refusing,
}


def quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def spoken(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 9.9995 else f"{seconds:.1f} s"


def row(count, balancer, name, rounds, at_once, seed):
    took, waited, lost, again = [], [], 0, 0
    for number in range(rounds):
        simulation = Simulation(count, balancer, seed * 1_000_003 + number)
        simulation.run(LOAD * count * WORKERS / MEAN, SCENARIOS[name], at_once)
        took += simulation.took
        waited += simulation.waited
        lost += simulation.lost
        again += simulation.again
    took.sort()
    waited.sort()
    cells = [name, balancer]
    cells += [spoken(quantile(took, share)) for share in (0.5, 0.99, 0.999)]
    cells += [spoken(quantile(waited, share)) for share in (0.99, 0.999)]
    return cells + [f"{part / rounds:.0f}" for part in (again, lost)]


HEADS = ["what is done", "balancer", "p50", "p99", "p99.9", "waited p99", "waited p99.9", "tried again", "lost"]


def table(rows):
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * 2 + "---:|" * (len(HEADS) - 2)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def erlang_c(workers, load):
    """How many have to wait where service times are exponential: known since 1917."""
    offered = workers * load
    terms = [1.0]
    for number in range(1, workers + 1):
        terms.append(terms[-1] * offered / number)
    queued = terms[-1] / (1 - load)
    return queued / (sum(terms[:-1]) + queued)


def check(seed):
    """One machine, exponential service times: as many wait, and for as long, as the formula says."""
    waited = []
    for number in range(100):
        simulation = Simulation(1, "least connections", seed + number, lambda chance: chance.expovariate(1 / MEAN))
        simulation.run(LOAD * WORKERS / MEAN, steady, 1)
        waited += simulation.waited
    share = sum(wait > 0 for wait in waited) / len(waited)
    mean = sum(waited) / len(waited)
    expected = erlang_c(WORKERS, LOAD)
    expected_mean = expected * MEAN / (WORKERS * (1 - LOAD))
    print(f"{share:.3f} of them wait, {mean * 1000:.1f} ms on average; Erlang C: {expected:.3f}, {expected_mean * 1000:.1f} ms")
    if abs(share / expected - 1) > 0.05 or abs(mean / expected_mean - 1) > 0.1:
        raise SystemExit("the simulation is wrong")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few machines and few rounds, and a case that can be calculated")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # Machines in all, of them rolled at once, and how often: so that each table has a few hundred thousand clients.
    sizes = [(1, 1, 2), (10, 1, 1)] if options.quick else [(1, 1, 300), (10, 1, 30), (1000, 1, 1), (1000, 50, 1)]
    if options.quick:
        check(options.seed)
    print(f"{WORKERS} workers a machine, {LOAD:.0%} load, mean service time {spoken(MEAN)}, seed {options.seed}.")
    for count, at_once, rounds in sizes:
        title = f"{count:,} machine{'s' * (count > 1)}" + (f", {at_once} at once" if count > 1 else "")
        print(f"\n### {title}\n")
        # With one machine there is nothing to balance.
        balancers = list(BALANCERS)[: 1 if count == 1 else None]
        rows = [row(count, balancer, name, rounds, at_once, options.seed) for name in SCENARIOS for balancer in balancers]
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
