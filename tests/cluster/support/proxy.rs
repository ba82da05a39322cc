//! A TCP proxy between rolecall and the API server, whose connections can be stalled or closed.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// State of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weather {
    /// When true, bytes are accepted and held back without an error, as after a lost route. They arrive when this ends.
    silent: bool,
    /// When true, new connections are closed at once.
    refusing: bool,
    /// Connections of an earlier generation are closed.
    generation: u64,
    /// Connections of an earlier era transfer no more bytes, and are never closed.
    era: u64,
}

/// The proxy. It runs in its own thread, so that a busy test does not slow it down.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Proxy {
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let (weather, seen) = watch::channel(Weather { silent: false, refusing: false, generation: 0, era: 0 });
        let (bound, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
                bound.send(listener.local_addr().expect("an address")).expect("the test waits");
                serve(listener, upstream, seen).await;
            });
        });
        Self { address: address.recv().expect("the proxy listens"), weather }
    }

    /// Stops the transfer of bytes without an error.
    pub(crate) fn blackhole(&self) {
        self.weather.send_modify(|weather| weather.silent = true);
    }

    /// Stalls the currently open connections forever, like a router that lost its state. New ones work.
    pub(crate) fn strand(&self) {
        self.weather.send_modify(|weather| weather.era += 1);
    }

    /// Closes all connections, and each new one at once.
    pub(crate) fn refuse(&self) {
        self.weather.send_modify(|weather| weather.refusing = true);
        self.cut();
    }

    /// Closes all connections; new ones work.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
    }

    /// Restores normal operation.
    pub(crate) fn heal(&self) {
        self.weather.send_modify(|weather| (weather.silent, weather.refusing) = (false, false));
    }
}

/// Serves until the proxy is dropped.
async fn serve(listener: TcpListener, upstream: SocketAddr, mut weather: watch::Receiver<Weather>) {
    loop {
        tokio::select! {
            changed = weather.changed() => if changed.is_err() { return },
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let now = *weather.borrow();
                if !now.refusing {
                    tokio::spawn(connection(client, upstream, weather.clone(), now));
                }
            }
        }
    }
}

async fn connection(client: TcpStream, upstream: SocketAddr, mut weather: watch::Receiver<Weather>, born: Weather) {
    let here = weather.clone();
    let copies = async move {
        let server = TcpStream::connect(upstream).await?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            result = copy(from_client, to_server, here.clone(), born.era) => result,
            result = copy(from_server, to_client, here, born.era) => result,
        }
    };
    tokio::select! {
        _ = copies => {}
        _ = weather.wait_for(|now| now.generation != born.generation) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    era: u64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let passes = weather.wait_for(|now| !now.silent && now.era == era).await.is_ok();
        if read == 0 || !passes {
            return Ok(());
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}
