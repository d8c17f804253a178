"""Running the server: what may be listened to, loading while it already answers, and an end that leaves nobody without an answer."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

import uvicorn

from twofold.errors import ConfigError
from twofold.serve.app import make_app
from twofold.serve.gate import LOCAL, Rules, is_local
from twofold.serve.keys import Keys
from twofold.serve.service import Loaded, Service

log = logging.getLogger(__name__)
DRAIN_SECONDS = 8.0
"""How long the server waits, when asked to stop, for what it has taken."""
CONNECTIONS = 2000
"""More at once are refused by the server below us, with 503."""


@dataclass(frozen=True)
class Listening:
    """Where, and for whom."""

    host: str = "127.0.0.1"
    port: int = 8080
    keys: Keys = field(default_factory=Keys)
    insecure: bool = False
    """Whether a public address without keys is meant."""
    allowed_hosts: tuple[str, ...] = ()

    def rules(self) -> Rules:
        """What the gate lets in. Raises ConfigError for a public address without a key."""
        local = is_local(self.host)
        if not local and not self.keys and not self.insecure:
            raise ConfigError(
                f"{self.host} can be reached from other machines and there is no key: give --keys FILE or TWOFOLD_API_KEY "
                "(`twofold key NAME` makes one), or --insecure if everybody may use it"
            )
        named = frozenset(name.lower() for name in self.allowed_hosts)
        hosts = LOCAL | named | {self.host} if local else (named or None)
        return Rules(self.keys, hosts)


class Server(uvicorn.Server):
    """Uvicorn's, with an end of our own: the first signal drains, the second stops at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._ending: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's)
        """Called in the main thread, between two steps of the loop."""
        if self.service.status == "draining":
            self.should_exit = self.force_exit = True
            return
        log.info("%s: finishing what was taken", signal.Signals(sig).name)
        self.service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn's heartbeat, ten times a second: begins the end when the service drains."""
        if self.service.status == "draining" and self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())
        return await super().on_tick(counter)

    async def _end(self) -> None:
        """New requests are told 503 until the old ones are answered; then the sockets close."""
        await asyncio.to_thread(self.service.close, DRAIN_SECONDS)
        self.should_exit = True


def serve(service: Service, load: Callable[[], Loaded], listening: Listening, started: Callable[[str], None] = lambda _: None) -> None:
    """Listens until it is told to stop. `started` is told the address. Raises ConfigError; and what loading raised, after the end."""
    app = make_app(service, listening.rules())
    config = uvicorn.Config(
        app,
        host=listening.host,
        port=listening.port,
        log_config=None,
        access_log=False,  # a log of queries is not ours to keep
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        server_header=False,
        h11_max_incomplete_event_size=32 * 1024,
    )
    server = Server(config, service)
    shown = f"[{listening.host}]" if ":" in listening.host else listening.host
    started(f"http://{shown}:{listening.port}")

    def loaded() -> Loaded:
        try:
            return load()
        except BaseException:
            server.should_exit = True  # a server that can never be ready is of no use
            raise

    service.start(loaded)
    try:
        server.run()
    except SystemExit as ended:  # uvicorn's word for an address that is taken
        if ended.code:
            raise ConfigError(f"cannot listen at {shown}:{listening.port}: is something else there?") from None
    finally:
        service.close(0.0)
    if service.error is not None:
        raise service.error
