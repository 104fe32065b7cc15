"""The link in front of a server: what it costs, and that it changes no byte."""

import hashlib
import http.client
import threading
import time
from urllib.parse import urlsplit

import pytest

from tests.demo.conftest import Client
from xnatfs.demo.link import LinkProxy


@pytest.fixture
def link(server):
    made = []

    def begin(rtt_s, bytes_per_s=0.0):
        one = LinkProxy(server.url, rtt_s, bytes_per_s).start()
        made.append(one)
        return Client(one.url)

    yield begin
    for one in made:
        one.stop()


def took(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_connection_set_up_and_round_trip(link):
    """Two round trips to connect, one for the request."""
    client = link(0.05)
    connection = http.client.HTTPConnection(urlsplit(client.url).netloc, timeout=20)

    def ask():
        connection.request("GET", "/data/JSESSION")
        assert connection.getresponse().read()

    assert took(ask) >= 0.15
    assert took(ask) >= 0.05
    connection.close()


def test_slow_start(client, link, accession):
    """What is larger than ten segments needs further round trips, each twice as much."""
    content = bytes(200_000)
    path = f"{accession}/resources/SLOWSTART/files/x"
    assert client.send(path, content).status == 200
    far = link(0.05)
    # 14.6 kB, then 29, 58, 117: the fourth flight ends it. Three round trips besides the first.
    seconds = took(lambda: far.get(path))
    assert seconds >= 0.15 + 3 * 0.05


def test_bandwidth_is_shared(client, link, accession):
    """Two downloads at once take as long as both one after the other."""
    content = bytes(400_000)
    path = f"{accession}/resources/SHARED/files/x"
    assert client.send(path, content).status == 200
    far = link(0.0, 2e6)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(far.get(path).body == content))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    seconds = took(lambda: [thread.join() for thread in threads])
    assert found == [True, True]
    assert seconds >= 0.38


def test_bytes_arrive_as_they_were(client, link, accession):
    content = hashlib.shake_256(b"link").digest(3_000_000)
    far = link(0.002, 100e6)
    path = f"{accession}/resources/LINK/files/x"
    assert far.send(path, content).status == 200
    assert client.get(path).body == content == far.get(path).body


def test_addresses_in_replies_are_those_of_the_link(link):
    """R§5.3: what a site calls itself is the address that its clients use."""
    far = link(0.0)
    made = far.ask("POST", "/data/projects/PVT000/subjects?label=ByLink", b"")
    assert made.body.decode().startswith(far.url)


def test_a_dead_server_is_a_closed_connection(start, tmp_path):
    server, _client = start(root=tmp_path / "short")
    with LinkProxy(server.url, 0.0) as link:
        server.stop()
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            Client(link.url).get("/data/JSESSION")
    with pytest.raises(ConnectionRefusedError):
        Client(link.url).get("/data/JSESSION")
