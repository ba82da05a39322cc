//! HTTP over a listener, with limits on what clients can use: connections in total and per peer, time to send a
//! request, and time to read the answer. A new connection never waits: it is admitted, if necessary in place of one
//! that waits for its client, or it is closed at once.

mod connections;
mod track;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use connections::{Closed, Connections, Place};
use track::{Tracked, TrackedBody};

pub(super) use connections::Room;

use crate::telemetry::HttpMetrics;

/// Largest head of a request, in bytes; also the amount of an answer buffered in memory for the client to read.
const BUFFER: usize = 128 * 1024;

/// Interval between log lines of a listener about reached limits.
const SAY: Duration = Duration::from_mins(1);

/// Timeouts of clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For the head of a request, from its first byte; and for the first byte of a connection's first request.
    pub(crate) head: Duration,
    /// Between two requests, on a connection whose last request had an accepted token. Longer than the idle timeout of
    /// proxies in front, so that no request arrives on a connection that is being closed.
    pub(crate) keep_alive: Duration,
    /// For the client to read the next bytes of an answer.
    pub(crate) write: Duration,
    /// Minimum average rate for reading an answer, in bytes per second, after `write`.
    pub(crate) write_rate: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            write: Duration::from_secs(20),
            write_rate: 16 * 1024,
        }
    }
}

/// Limits of all clients of one listener together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Limits on connections.
    pub(crate) room: Room,
    /// Limits on time.
    pub(crate) timeouts: Timeouts,
}

impl Bounds {
    /// At most `total` connections, a quarter of them reserved for clients with an accepted token; `per_peer` of one
    /// peer.
    pub(super) fn proven(total: usize, per_peer: usize) -> Self {
        let room = Room { total, unproven: (total - total / 4).max(1), per_peer: per_peer.min(total) };
        Self { room, timeouts: Timeouts::default() }
    }

    /// At most `total` connections on a port without tokens.
    pub(super) fn open(total: usize, per_peer: usize) -> Self {
        Self { room: Room { total, unproven: total, per_peer }, timeouts: Timeouts::default() }
    }
}

/// One listener, its name in metrics and logs, and its bounds.
pub(super) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) name: &'static str,
    pub(crate) bounds: Bounds,
    pub(crate) metrics: HttpMetrics,
}

impl Server {
    /// Serves HTTP/1.1 until `stop` is canceled, and then until the requests in progress are answered.
    pub(super) async fn serve(self, router: Router, stop: CancellationToken) {
        let places = Connections::new(self.bounds.room);
        let tasks = TaskTracker::new();
        let mut full = Reminder::default();
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {
                        continue;
                    }
                    Err(error) => {
                        self.cannot_accept(&error, &places).await;
                        continue;
                    }
                },
                () = stop.cancelled() => break,
            };
            let admitted = places.admit(peer.ip(), Instant::now());
            if admitted.displaced {
                self.count(Closed::Displaced);
            }
            match admitted.place {
                Ok(place) => {
                    let talk = self.converse(stream, place, router.clone(), stop.clone());
                    self.metrics.connections.set([self.name], places.len());
                    let (metrics, name, places) = (self.metrics.clone(), self.name, places.clone());
                    tasks.spawn(async move {
                        talk.await;
                        metrics.connections.set([name], places.len());
                    });
                }
                Err(why) => {
                    drop(stream);
                    self.count(why);
                    if let Some(times) = full.due(Instant::now()) {
                        tracing::warn!(
                            listener = self.name,
                            reason = why.word(),
                            times,
                            "connections are refused: each of those there are is busy; --max-connections and --max-connections-per-peer set how many there may be"
                        );
                    }
                }
            }
        }
        drop(self.listener);
        tasks.close();
        tasks.wait().await;
    }

    fn count(&self, why: Closed) {
        self.metrics.connections_closed.inc([self.name, why.word()]);
    }

    /// Handles a failure to accept, such as too many open files: closing one connection helps at once.
    async fn cannot_accept(&self, error: &std::io::Error, places: &Connections) {
        let made_room = places.make_room(Instant::now());
        if made_room {
            self.count(Closed::Displaced);
        }
        tracing::warn!(listener = self.name, %error, made_room, "a connection cannot be accepted");
        tokio::time::sleep(Duration::from_millis(if made_room { 10 } else { 500 })).await;
    }

    fn converse(
        &self,
        stream: TcpStream,
        place: Place,
        router: Router,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (timeouts, metrics, name) = (self.bounds.timeouts, self.metrics.clone(), self.name);
        async move {
            // Answers are small; without this they would wait for more data.
            let _ = stream.set_nodelay(true);
            let track = place.track.clone();
            let service = {
                let track = track.clone();
                service_fn(move |request: Request<Incoming>| {
                    track.begin(Instant::now());
                    let mut request = request.map(Body::new);
                    request.extensions_mut().insert(track.connection());
                    let (router, track) = (router.clone(), track.clone());
                    async move {
                        let response: Response<Body> = router.oneshot(request).await?;
                        Ok::<_, std::convert::Infallible>(response.map(|body| TrackedBody { body, track }))
                    }
                })
            };
            let connection = http1::Builder::new()
                .max_buf_size(BUFFER)
                .serve_connection(TokioIo::new(Tracked { stream, track: track.clone() }), service);
            tokio::pin!(connection);
            let look = (timeouts.head / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
            let mut ending = false;
            let closed = loop {
                tokio::select! {
                    ended = &mut connection => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a connection ended");
                        }
                        break None;
                    }
                    () = stop.cancelled(), if !ending => {
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    // Counted where the other connection was admitted.
                    () = place.close.cancelled() => break None,
                    () = tokio::time::sleep(look) => {
                        if let Some(why) = track.overdue(&timeouts, Instant::now()) {
                            break Some(why);
                        }
                    }
                }
            };
            if let Some(why) = closed {
                metrics.connections_closed.inc([name, why.word()]);
                tracing::debug!(listener = name, reason = why.word(), "a connection was closed");
            }
            drop(place);
        }
    }
}

/// Lets one log line pass per interval, and counts those that it suppresses.
#[derive(Default)]
struct Reminder {
    last: Option<Instant>,
    times: u64,
}

impl Reminder {
    /// Counts one occurrence. Returns the number since the last line when the next one is due.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < SAY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests;
