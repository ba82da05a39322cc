//! HTTP over a listener, with bounds on what clients can hold: connections, of all and of one peer; time to say something;
//! time to read the answer. A connection that comes is never left to wait: it gets a place, if need be that of one that
//! waits for its client, or it is closed at once.

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

/// The largest head of a request, in bytes; also how much of an answer waits in memory for the client to read.
const BUFFER: usize = 128 * 1024;

/// A listener says at most so often that it is full.
const SAY: Duration = Duration::from_mins(1);

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For the head of a request, from its first byte; and for the first byte of a connection's first request.
    pub head: Duration,
    /// Between two requests, on a connection whose last request had an accepted token. Longer than the proxies in front
    /// keep theirs, so that no request meets a closing connection.
    pub keep_alive: Duration,
    /// For the next bytes of an answer to be taken.
    pub write: Duration,
    /// How fast an answer is to be read on the whole, after `write`: bytes a second.
    pub write_rate: u64,
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

/// What all clients of one listener may use together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How many connections there may be.
    pub room: Room,
    /// How long they may take.
    pub timeouts: Timeouts,
}

impl Bounds {
    /// At most `total` connections, a quarter of them for who shows a token; `per_peer` of one peer.
    pub(super) fn proven(total: usize, per_peer: usize) -> Self {
        let room = Room { total, unproven: (total - total / 4).max(1), per_peer: per_peer.min(total) };
        Self { room, timeouts: Timeouts::default() }
    }

    /// At most `total` connections on a port where nobody shows a token.
    pub(super) fn open(total: usize, per_peer: usize) -> Self {
        Self { room: Room { total, unproven: total, per_peer }, timeouts: Timeouts::default() }
    }
}

/// One listener, its name in metrics and logs, and its bounds.
pub(super) struct Server {
    pub listener: TcpListener,
    pub name: &'static str,
    pub bounds: Bounds,
    pub metrics: HttpMetrics,
}

impl Server {
    /// Serves HTTP/1.1 until `stop` is cancelled, and then until what is under way is answered.
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

    /// Such as too many open files: one connection less helps at once.
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
            // Answers are small; without this they would wait for more to send.
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
                    // Counted by whoever needed the room.
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

/// Lets one line through in a while, and counts those that it holds back.
#[derive(Default)]
struct Reminder {
    last: Option<Instant>,
    times: u64,
}

impl Reminder {
    /// Counts one more; how many there were since the last line, when it is time for another.
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
