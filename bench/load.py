"""HTTP load from one thread over raw keep-alive sockets, so that the client does not distort the measurement."""

import selectors
import socket
import time


def request(method, path, host, body=b"", token=None, kind="application/scim+json"):
    """The bytes of one request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return head.encode() + b"\r\n" + body


class Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.sent = 0.0

    def send(self, data):
        self.buffer = b""
        self.sent = time.perf_counter()
        self.socket.sendall(data)

    def answer(self):
        """Reads the available bytes. Returns (status, body) when the answer is complete, else None."""
        data = self.socket.recv(262144)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        length = 0
        for line in head.lower().split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return (int(head[9:12]), body) if len(body) >= length else None

    def ask(self, data):
        """Sends one request and waits: status, body, seconds."""
        self.send(data)
        while (answer := self.answer()) is None:
            pass
        return (*answer, time.perf_counter() - self.sent)


def run(address, requests, connections, expect=(200, 201, 204), keep=False):
    """Sends all requests over so many connections, each with one under way.

    Returns seconds for all, the latency of each, and the bodies if `keep`. Any status but the expected ones ends the run.
    """
    selector = selectors.DefaultSelector()
    todo = iter(enumerate(requests))
    latencies, bodies, busy, under_way = [], {}, 0, {}
    started = time.perf_counter()
    for _ in range(connections):
        if (item := next(todo, None)) is None:
            break
        connection = Connection(address)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        under_way[connection] = item[0]
        connection.send(item[1])
        busy += 1
    while busy:
        for key, _ in selector.select():
            connection = key.data
            if (answer := connection.answer()) is None:
                continue
            latencies.append(time.perf_counter() - connection.sent)
            if answer[0] not in expect:
                raise RuntimeError(f"answered {answer[0]}: {answer[1][:300].decode(errors='replace')}")
            if keep:
                bodies[under_way[connection]] = answer[1]
            if (item := next(todo, None)) is None:
                selector.unregister(connection.socket)
                connection.socket.close()
                busy -= 1
            else:
                under_way[connection] = item[0]
                connection.send(item[1])
    return time.perf_counter() - started, latencies, [bodies[index] for index in sorted(bodies)]
