//! State of one connection and its duration, and the stream and body that record it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Timeouts;
use super::connections::Closed;
use crate::scim_server::Connection;

/// At which point a connection waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// For a first or further request, of which nothing has arrived.
    ForNextRequest,
    /// For the rest of a request, or for the client to read the answer.
    InsideRequest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of a request has arrived.
    Idle,
    /// A part of a head has arrived.
    Head,
    /// The request is being handled.
    Request,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// True when a request was answered on it.
    used: bool,
    /// Since when the system accepts no more of the answer.
    blocked: Option<Instant>,
    /// Total time for which the system accepted no more of this answer, without the present `blocked`.
    stalled: Duration,
    /// Number of bytes of this answer that the system accepted.
    written: u64,
}

/// State of one connection, as its listener sees it.
#[derive(Debug)]
pub(super) struct Track {
    connection: Connection,
    state: Mutex<State>,
}

impl Track {
    pub(super) fn new(peer: IpAddr, now: Instant) -> Self {
        let state =
            State { phase: Phase::Idle, since: now, used: false, blocked: None, stalled: Duration::ZERO, written: 0 };
        Self { connection: Connection::of(peer), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view of the connection that the endpoint receives.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.connection.is_authenticated()
    }

    /// At which point the connection waits for its client, and since when; none while the server works.
    pub(super) fn waits(&self) -> Option<(Waits, Instant)> {
        let state = self.state();
        match state.phase {
            _ if let Some(since) = state.blocked => Some((Waits::InsideRequest, since)),
            Phase::Idle => Some((Waits::ForNextRequest, state.since)),
            Phase::Head => Some((Waits::InsideRequest, state.since)),
            Phase::Request if self.connection.is_receiving() => Some((Waits::InsideRequest, state.since)),
            Phase::Request => None,
        }
    }

    fn received(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
    }

    /// Records that the head of a request is complete.
    pub(super) fn begin(&self, now: Instant) {
        let mut state = self.state();
        state.phase = Phase::Request;
        state.since = now;
        state.stalled = Duration::ZERO;
        state.written = 0;
    }

    /// Records that the answer was passed on completely.
    fn answered(&self) {
        let mut state = self.state();
        state.phase = Phase::Idle;
        state.since = Instant::now();
        state.used = true;
    }

    fn wrote(&self, bytes: usize) {
        let mut state = self.state();
        if let Some(since) = state.blocked.take() {
            state.stalled += since.elapsed();
        }
        state.written = state.written.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    fn blocked(&self) {
        self.state().blocked.get_or_insert_with(Instant::now);
    }

    /// Why the connection has to be closed now, if its client took too long.
    pub(super) fn overdue(&self, timeouts: &Timeouts, now: Instant) -> Option<Closed> {
        let state = self.state();
        if let Some(since) = state.blocked {
            let blocked = now.saturating_duration_since(since);
            let stalled = state.stalled + blocked;
            let allowed = timeouts.write + Duration::from_secs(state.written / timeouts.write_rate.max(1));
            return (blocked > timeouts.write || stalled > allowed).then_some(Closed::WriteTimeout);
        }
        let (allowed, why) = match state.phase {
            Phase::Head => (timeouts.head, Closed::HeadTimeout),
            Phase::Idle if state.used && self.connection.is_authenticated() => {
                (timeouts.keep_alive, Closed::IdleTimeout)
            }
            Phase::Idle => (timeouts.head, Closed::IdleTimeout),
            Phase::Request => return None,
        };
        (now.saturating_duration_since(state.since) > allowed).then_some(why)
    }
}

/// A stream that records when bytes arrive and when nothing can be written.
pub(super) struct Tracked {
    pub(super) stream: TcpStream,
    pub(super) track: Arc<Track>,
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.track.received();
        }
        read
    }
}

impl Tracked {
    fn note(&self, written: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.track.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.track.blocked(),
        }
        written
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The body of an answer, which records when it was passed on completely.
pub(super) struct TrackedBody {
    pub(super) body: Body,
    pub(super) track: Arc<Track>,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.track.answered();
    }
}
