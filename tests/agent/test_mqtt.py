"""The MQTT sink: a broker that is slow, gone or wrong costs results, never the loop."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kedge_agent.sinks import mqtt as sink_module
from kedge_agent.sinks.mqtt import Mqtt
from kedge_agent.sinks.opening import open_sinks
from kedge_agent.sinks.queued import Queued
from kedge_agent.specs import BrokerSpec, SinkSpec, sinks_of
from kedge_shared.errors import InputError, KedgeError, ServiceError
from tests.agent.test_settings import settings_of
from tests.agent.test_sinks import result
from tests.sim.broker import SimBroker
from tests.sim.camera import Clock
from tests.sim.ports import steady_port
from tests.waiting import PATIENCE, wait_for


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker counts as away because the machine stalls."""
    monkeypatch.setattr(sink_module, "_WAIT_SECONDS", PATIENCE)
    monkeypatch.setattr(sink_module, "_GOODBYE_SECONDS", PATIENCE)


@pytest.fixture
def lose_patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on a broker that is away is told soon."""
    return lambda: monkeypatch.setattr(sink_module, "_WAIT_SECONDS", 0.3)


@pytest.fixture
def broker() -> Iterator[SimBroker]:
    found = SimBroker()
    yield found
    found.kill()


def spec_of(port: int, **more: Any) -> BrokerSpec:
    return BrokerSpec(**{"host": "127.0.0.1", "port": port, "topic": "plant/cam-1", "tls": False,
                         **more})  # fmt: skip


def opened(spec: BrokerSpec) -> Queued:
    (sink,) = open_sinks([SinkSpec(kind="mqtt", broker=spec)])
    return sink


DETECTIONS, STATUS = "plant/cam-1/detections/main", "plant/cam-1/status"


def test_each_result_of_each_source_is_published(broker: SimBroker) -> None:
    sink = opened(spec_of(broker.port, client_id="cam-1"))
    for seq in range(50):
        sink.put(result(seq))
    sink.put(result(7, "yard"))
    sink.close()
    wait_for(lambda: broker.bodies("plant/cam-1/detections/yard"))
    wait_for(lambda: len(broker.bodies(STATUS)) == 2)
    found = [json.loads(each) for each in broker.bodies(DETECTIONS)]
    assert [each["seq"] for each in found] == list(range(50))
    assert found[0]["objects"] == [{"label": "square", "conf": 0.9, "box": [8.0, 8.0, 40.0, 40.0]}]
    assert broker.clients == ["cam-1"]
    states = [(each.body, each.retain) for each in broker.messages if each.topic == STATUS]
    assert states == [(b'{"state":"online"}', True), (b'{"state":"stopped"}', True)]
    assert (sink.state().taken, sink.state().dropped, sink.state().errors) == (51, 0, 0)


def test_a_board_that_vanishes_is_offline_by_its_last_will(broker: SimBroker) -> None:
    sink = Mqtt(spec_of(broker.port))
    sink.put(result())
    wait_for(lambda: broker.bodies(DETECTIONS))
    broker.cut()
    wait_for(lambda: any(each.last_will for each in broker.messages))
    (will,) = [each for each in broker.messages if each.last_will]
    assert (will.topic, will.body, will.retain) == (STATUS, b'{"state":"offline"}', True)
    wait_for(lambda: broker.bodies(STATUS)[-1] == b'{"state":"online"}')
    sink.close()


@pytest.mark.parametrize("qos", [0, 1])
def test_a_connection_that_broke_unheard_does_not_end_the_sink(
    broker: SimBroker, qos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result falls into the moment between the break and its being told."""
    monkeypatch.setattr(sink_module.random, "random", lambda: 0.0)
    sink = Mqtt(spec_of(broker.port, qos=qos))
    sink.put(result(0))
    wait_for(lambda: broker.bodies(DETECTIONS))
    heard, sink._client.on_disconnect = threading.Event(), lambda *_: heard.set()
    broker.kill()
    assert heard.wait(PATIENCE)
    if qos == 0:
        with pytest.raises(ServiceError, match=f"broker 127.0.0.1:{broker.port}: connection lost"):
            sink.put(result(1))
    else:
        sink.put(result(1))
    broker.start()
    wait_for(lambda: broker.bodies(STATUS).count(b'{"state":"online"}') == 2)
    sink.put(result(2))
    wanted = [0, 2] if qos == 0 else [0, 1, 2]
    wait_for(lambda: sorted({json.loads(each)["seq"] for each in broker.bodies(DETECTIONS)})
             == wanted)  # fmt: skip
    wait_for(lambda: all(each.is_published() for each in sink._sent))
    sink.close()


def test_what_a_connection_took_along_ends_no_sink(broker: SimBroker) -> None:
    """paho raises whenever it is asked about such a message; those behind it must go on."""
    import paho.mqtt.client as paho

    sink = Mqtt(spec_of(broker.port))
    sink.put(result(0))
    lost = paho.MQTTMessageInfo(7)
    lost.rc = paho.MQTT_ERR_CONN_LOST
    sink._sent.appendleft(lost)
    sink.put(result(1))
    wait_for(lambda: len(broker.bodies(DETECTIONS)) == 2)
    sink.close()


def test_a_broker_that_is_away_costs_results_and_comes_back(
    broker: SimBroker, monkeypatch: pytest.MonkeyPatch, lose_patience: Callable[[], None]
) -> None:
    monkeypatch.setattr(sink_module.random, "random", lambda: 0.0)
    sink = opened(spec_of(broker.port))
    sink.put(result(0))
    wait_for(lambda: broker.bodies(DETECTIONS))
    broker.kill()
    lose_patience()
    tried = itertools.count()

    def told() -> bool:
        """A result may still go into a connection that broke unheard."""
        sink.put(result(next(tried)))
        time.sleep(0.01)
        return "broker 127.0.0.1:" in sink.state().why

    wait_for(told)
    assert sink.state().errors > 0
    began = time.monotonic()
    for seq in range(1, 1001):
        sink.put(result(seq))
    assert time.monotonic() - began < PATIENCE, "who leaves a result waits for nobody"
    before = len(broker.bodies(DETECTIONS))
    broker.start()
    wait_for(lambda: len(broker.bodies(DETECTIONS)) > before)
    wait_for(lambda: json.loads(broker.bodies(DETECTIONS)[-1])["seq"] == 1000)
    sink.close()
    state = sink.state()
    assert state.dropped >= 1000 - 256 - 2 * 20, "more than the queue holds is dropped, and counted"
    assert state.taken + state.dropped + state.errors == 1001 + next(tried)


def test_what_was_not_acknowledged_is_sent_again(
    broker: SimBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module.random, "random", lambda: 0.0)
    broker.acknowledges = False
    sink = Mqtt(spec_of(broker.port, qos=1))
    for seq in range(5):
        sink.put(result(seq))
    wait_for(lambda: len(broker.bodies(DETECTIONS)) == 5)
    broker.acknowledges = True
    broker.cut()
    wait_for(lambda: len(broker.bodies(DETECTIONS)) >= 10)
    again = [each for each in broker.messages if each.topic == DETECTIONS and each.again]
    assert [json.loads(each.body)["seq"] for each in again] == list(range(5))
    sink.close()


@pytest.mark.parametrize("qos", [0, 1])
def test_a_broker_that_takes_nothing_does_not_fill_the_memory(
    broker: SimBroker, qos: int, lose_patience: Callable[[], None]
) -> None:
    sink = Mqtt(spec_of(broker.port, qos=qos))
    sink.put(result())
    wait_for(lambda: broker.bodies(DETECTIONS))
    broker.reads = False
    lose_patience()
    large = result()
    object.__setattr__(large.found, "classes", ("circle", "s" * 2_000_000))
    with pytest.raises(ServiceError, match="does not take"):
        for _ in range(60):
            sink.put(large)
    assert len(sink._client._out_packet) + len(sink._client._out_messages) <= 2 * 20 + 2
    broker.reads = True
    sink.close()


def test_no_more_often_than_wanted(broker: SimBroker) -> None:
    clock = Clock()
    sink = Mqtt(spec_of(broker.port, every_seconds=2.0), clock)
    for seq, wait in enumerate((0.0, 1.9, 0.2, 2.0)):
        clock.now += wait
        sink.put(result(seq))
        sink.put(result(seq, "yard"))
    wait_for(lambda: len(broker.messages) >= 7)
    sink.close()
    assert [json.loads(each)["seq"] for each in broker.bodies(DETECTIONS)] == [0, 2, 3]


def test_user_and_password_come_from_a_file(
    tmp_path: Path, lose_patience: Callable[[], None]
) -> None:
    broker = SimBroker(credentials=("cam", "pass word"))
    (tmp_path / "right").write_text("cam\npass word\n")
    (tmp_path / "wrong").write_text("cam\nother\n")
    (tmp_path / "half").write_text("secret\n")
    sink = Mqtt(spec_of(broker.port, credentials_file=tmp_path / "right"))
    sink.put(result())
    wait_for(lambda: broker.bodies(DETECTIONS))
    sink.close()
    lose_patience()
    sink = Mqtt(spec_of(broker.port, credentials_file=tmp_path / "wrong"))
    with pytest.raises(ServiceError, match=r"refused|not connected") as refused:
        sink.put(result())
    assert "other" not in str(refused.value)
    sink.close()
    with pytest.raises(InputError, match="a line each") as half:
        Mqtt(spec_of(broker.port, credentials_file=tmp_path / "half"))
    assert "secret" not in str(half.value)
    with pytest.raises(KedgeError, match="cannot be read"):
        Mqtt(spec_of(broker.port, credentials_file=tmp_path / "none"))
    broker.kill()


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Returns a certificate that vouches for 127.0.0.1, and a broker's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        ).sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate, secret = folder / "ca.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ))  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    return certificate, context


# paho leaves the socket of a handshake that failed to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_over_tls_only_to_a_broker_whose_certificate_is_vouched_for(
    tmp_path: Path, lose_patience: Callable[[], None]
) -> None:
    certificate, context = authority(tmp_path)
    broker = SimBroker(tls=context)
    sink = Mqtt(spec_of(broker.port, tls=True, ca_file=certificate))
    sink.put(result())
    wait_for(lambda: broker.bodies(DETECTIONS))
    sink.close()
    lose_patience()
    stranger = Mqtt(spec_of(broker.port, tls=True))
    with pytest.raises(ServiceError):
        stranger.put(result())
    stranger.close()
    assert len(broker.clients) == 1, "not even its name was told"
    broker.kill()


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed")
def test_mosquitto_takes_it_dies_and_comes_back(
    tmp_path: Path, lose_patience: Callable[[], None]
) -> None:
    port = steady_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)

    import paho.mqtt.client as paho

    got: list[tuple[str, bytes]] = []
    broker = start()
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2)
    listener.on_connect = lambda client, *_: client.subscribe("plant/#", 1)
    listener.on_message = lambda _, __, message: got.append((message.topic, message.payload))
    listener.reconnect_delay_set(1, 1)
    listener.connect_async("127.0.0.1", port)
    listener.loop_start()
    sink = opened(spec_of(port, qos=1))
    halt, given = threading.Event(), 0

    def camera() -> None:
        nonlocal given
        while not halt.wait(0.02):
            sink.put(result(given))
            given += 1

    feeding = threading.Thread(target=camera)
    feeding.start()
    wait_for(lambda: sum(topic == DETECTIONS for topic, _ in got) > 5)
    lose_patience()
    broker.kill()
    broker.wait()
    wait_for(lambda: sink.state().errors > 0)
    before = len(got)
    broker = start()
    wait_for(lambda: sum(topic == DETECTIONS for topic, _ in got[before:]) > 5)
    halt.set()
    feeding.join()
    sink.close()
    wait_for(lambda: (STATUS, b'{"state":"stopped"}') in got)
    listener.loop_stop()
    broker.terminate()
    broker.wait()
    assert sink.state().taken > 10


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"host": "broker.example", "tls": False}, "tls: true"),
        ({"certificate_file": Path("a.pem")}, "both certificate_file and key_file"),
    ],
)
def test_a_configuration_that_cannot_be_meant(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sinks_of(SinkSpec(kind="mqtt", broker=spec_of(1883, **more)), Path())


def test_it_is_configured_like_the_others(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sink.broker"):
        settings_of(tmp_path, sink={"kind": "mqtt"})
    body = {"host": "broker.example", "topic": "plant/cam-1", "credentials_file": "secret"}
    (found,) = settings_of(tmp_path, sink=[{"kind": "mqtt", "broker": body}]).sink  # type: ignore[misc]
    assert found.broker.credentials_file == tmp_path / "secret"
    assert found.broker.on_port == 8883
    for wrong, said in (
        ({"hots": "x"}, "unknown settings: sink.broker.hots"),
        ({"topic": "plant/#"}, "topic"),
        ({"topic": "plant/"}, "topic"),
        ({"qos": 2}, "qos"),
    ):
        with pytest.raises(InputError, match=said):
            settings_of(tmp_path, sink=[{"kind": "mqtt", "broker": {**body, **wrong}}])


def test_without_paho_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(InputError, match=r"kedge\[mqtt\]"):
        Mqtt(spec_of(1883))
