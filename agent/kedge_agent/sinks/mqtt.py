"""Detections to an MQTT broker; needs ``kedge[mqtt]`` (paho-mqtt).

| topic | carries |
|---|---|
| ``TOPIC/detections/SOURCE`` | a result, as :func:`kedge_agent.sinks.base.as_json` has it |
| ``TOPIC/status`` | ``{"state":"online"}`` or ``stopped``, retained |

A board that fell silent is ``offline`` there: its last will, said by the broker.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kedge_agent.network.backoff import Backoff
from kedge_agent.sinks.base import Result, as_json
from kedge_agent.specs import BrokerSpec
from kedge_shared.errors import InputError, ServiceError, StorageError

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

#: Results that are on their way: sent and not acknowledged, or not yet sent.
_ON_THE_WAY = 20
#: A result waits so long for the broker; meanwhile the queue before the sink drops the oldest.
_WAIT_SECONDS = 1.0
_LOOK_SECONDS = 0.02
_GOODBYE_SECONDS = 1.0
#: A broker that was away is not stormed by a fleet.
_BACKOFF = Backoff(first_seconds=2.0, longest_seconds=60.0)
_CREDENTIALS_LIMIT = 4096


class Mqtt:
    """Publishes each result, or one now and then, of each source.

    The connection is kept by paho's thread: it comes back by itself, waits longer each time, and
    sends what was not acknowledged again (``qos: 1``).

    Args:
        spec: Broker and topic.
        clock: Monotonic seconds.

    Raises:
        InputError: paho-mqtt is not installed, or a file of the configuration cannot be used.
    """

    def __init__(self, spec: BrokerSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._clock = spec, clock
        self._connected = threading.Event()
        self._why = "not connected yet"
        self._failures = 0
        self._sent: deque[MQTTMessageInfo] = deque()
        self._last: dict[str, float] = {}
        self._mqtt = _paho()
        self._client = self._start()

    def put(self, result: Result) -> None:
        """Publishes a result if it is time.

        Raises:
            ServiceError: The broker is away, or does not take what waits.
        """
        now, last = self._clock(), self._last.get(result.source)
        if last is not None and now - last < self._spec.every_seconds:
            return
        if not self._connected.wait(_WAIT_SECONDS):
            raise self._away()
        self._wait_for_room()
        self._last[result.source] = now
        topic = f"{self._spec.topic}/detections/{result.source}"
        self._sent.append(self._publish(topic, as_json(result), self._spec.qos))

    def close(self) -> None:
        """Says that the board stopped, and goes."""
        if self._connected.is_set():
            last_words = self._publish(*self._status("stopped"))  # quality 1: never refused
            until = time.monotonic() + _GOODBYE_SECONDS
            while not _is_settled(last_words) and time.monotonic() < until:
                time.sleep(_LOOK_SECONDS)
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self, topic: str, body: bytes, qos: int, retain: bool = False) -> MQTTMessageInfo:
        """Hands a message to paho; where a connection broke unheard it keeps quality 1 alone."""
        info = self._client.publish(topic, body, qos, retain)
        if info.rc == self._mqtt.MQTT_ERR_NO_CONN and qos > 0:
            info.rc = self._mqtt.MQTT_ERR_SUCCESS
        if info.rc:
            # It is told in a moment; without this pause a whole queue would be lost until then.
            time.sleep(_LOOK_SECONDS)
            raise self._away()
        return info

    def _away(self) -> ServiceError:
        where = f"broker {self._spec.host}:{self._spec.on_port}"
        return ServiceError(f"{where}: {self._why or 'connection lost'}")

    def _wait_for_room(self) -> None:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            while self._sent and _is_settled(self._sent[0]):
                self._sent.popleft()
            if len(self._sent) < _ON_THE_WAY:
                return
            if time.monotonic() > until:
                where = f"broker {self._spec.host}:{self._spec.on_port}"
                if self._spec.qos == 0:
                    # Whatever was on its way when a connection broke is never told as sent.
                    self._sent.clear()
                raise ServiceError(f"{where} does not take what is sent")
            time.sleep(_LOOK_SECONDS)

    def _status(self, state: str) -> tuple[str, bytes, int, bool]:
        return f"{self._spec.topic}/status", b'{"state":"%s"}' % state.encode(), 1, True

    def _start(self) -> Client:
        mqtt, spec = self._mqtt, self._spec
        client: Client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=spec.client_id)
        if spec.tls:
            client.tls_set_context(_tls(spec))
        if spec.credentials_file is not None:
            client.username_pw_set(*_credentials(spec))
        client.will_set(*self._status("offline"))
        client.max_inflight_messages_set(_ON_THE_WAY)
        client.on_connect = self._came
        client.on_disconnect = self._went
        client.on_connect_fail = lambda client, _: self._failed(client, "does not answer")
        client.connect_async(spec.host, spec.on_port, keepalive=spec.keep_alive_seconds)
        client.loop_start()
        return client

    def _came(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            self._why = f"refused: {reason}"
            return
        self._failures, self._why = 0, ""
        client.publish(*self._status("online"))
        self._connected.set()

    def _went(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        self._connected.clear()
        self._failed(client, self._why or f"connection lost: {reason}")

    def _failed(self, client: Client, why: str) -> None:
        self._why = why
        # paho doubles its pause from the least one on; a drawn one spreads the fleet.
        pause = max(1, round(_BACKOFF.wait(self._failures, random.random())))  # noqa: S311
        client.reconnect_delay_set(pause, round(_BACKOFF.longest_seconds))
        self._failures += 1


def _is_settled(message: MQTTMessageInfo) -> bool:
    """Says whether a message needs no more waiting for: it went, or its connection took it along.

    Of the latter paho raises whenever it is asked, for ever.
    """
    try:
        return bool(message.is_published())
    except RuntimeError:
        return True


def _paho() -> Any:
    try:
        import paho.mqtt.client as mqtt
    except ImportError:
        raise InputError("sink mqtt needs paho-mqtt", "pip install 'kedge[mqtt]'") from None
    return mqtt


def _tls(spec: BrokerSpec) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=None if spec.ca_file is None else str(spec.ca_file)
        )
        if spec.certificate_file is not None:
            context.load_cert_chain(spec.certificate_file, spec.key_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"a certificate of sink mqtt cannot be read: {error}") from None
    return context


def _credentials(spec: BrokerSpec) -> tuple[str, str]:
    path = spec.credentials_file
    if path is None:
        raise InputError("sink mqtt has no credentials_file")
    try:
        with path.open("rb") as file:
            lines = file.read(_CREDENTIALS_LIMIT).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        raise StorageError(f"credentials_file {path} of sink mqtt cannot be read") from None
    if len(lines) != 2 or not all(lines):
        # Nothing of what it holds is told.
        raise InputError(f"credentials_file {path} of sink mqtt is not a user and a password",
                         "write them on a line each")  # fmt: skip
    return lines[0], lines[1]
