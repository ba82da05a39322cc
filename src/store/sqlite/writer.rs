//! The single writer: requests of many tasks share a transaction, each in its own savepoint, and each is answered after
//! the commit. When the commit fails, all of them are answered with the error. [`crate::store::lanes`] decides who is
//! served next.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::connection::{BUSY, Role, connect, spawn};
use super::query::Query as _;
use super::readers::guarded;
use super::transaction::{Ports, Transaction};
use crate::model::Seq;
use crate::store::StoreError;
use crate::store::lanes::{Lane, Lanes, Ticket};

/// Largest number of waiting requests of one lane; further ones wait outside, which is back-pressure for their callers
/// and nobody else.
const PLACES: usize = 256;

/// Shortest commit after which a batch waits for further callers.
const SLOW_COMMIT: Duration = Duration::from_millis(2);

/// Longest wait for further callers.
const PATIENCE: Duration = Duration::from_millis(2);

fn stopped() -> StoreError {
    StoreError::Unavailable { problem: "the store is shutting down".to_owned() }
}

/// One waiting request of any answer type.
pub(super) trait Request: Send {
    /// Does the work and stores the answer; returns how the work ended.
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError>;

    /// Sends the answer; an error of the commit replaces it.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Waiting<T, W> {
    work: Option<W>,
    result: Result<T, StoreError>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Request for Waiting<T, W>
where
    T: Send,
    W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // A caller's function runs here; its panic must not take the writer with it.
        self.result = guarded(|| work(transaction));
        match &self.result {
            Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        // The caller may have gone away; what was committed stays committed.
        let _gone = self.reply.send(match committed {
            Ok(()) => self.result,
            Err(error) => Err(error),
        });
    }
}

/// The future answer to a request.
pub(super) struct Answer<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Answer<T> {
    pub(super) async fn get(self) -> Result<T, StoreError> {
        self.0.await.map_err(|_| stopped())?
    }
}

/// A request and its answer.
pub(super) fn request<T, W>(work: W) -> (Box<dyn Request>, Answer<T>)
where
    T: Send + 'static,
    W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let result = Err(StoreError::Internal { problem: "the request was never run".to_owned() });
    (Box::new(Waiting { work: Some(work), result, reply }), Answer(answer))
}

/// Runs the requests of a batch and commits them; returns the last position of the log. After an error nothing of any
/// request is stored.
fn commit(db: &mut Connection, ports: &Ports, batch: &mut [Box<dyn Request>]) -> Result<Seq, StoreError> {
    let committed = run_all(db, ports, batch);
    // The database may have rolled back by itself (full disk).
    if committed.is_err() && !db.is_autocommit() {
        // A connection that cannot roll back is closed by its owner.
        let _ = db.run("ROLLBACK", []);
    }
    committed
}

fn run_all(db: &mut Connection, ports: &Ports, batch: &mut [Box<dyn Request>]) -> Result<Seq, StoreError> {
    let mut transaction = Transaction::begin(db, ports)?;
    for request in batch {
        transaction.request(|transaction| request.run(transaction))?;
    }
    transaction.finish()
}

/// Commits a batch, calls `after`, answers the requests, and announces the new position: who asked goes before who follows.
pub(super) fn serve(
    db: Result<&mut Connection, StoreError>,
    ports: &Ports,
    announce: &watch::Sender<Seq>,
    mut batch: Vec<Box<dyn Request>>,
    after: impl FnOnce(),
) {
    // A panic outside of a request must not end the thread: every later write would be refused.
    let committed = db.and_then(|db| guarded(|| commit(db, ports, &mut batch)));
    if let Err(error) = &committed {
        tracing::warn!(reason = error.reason(), %error, requests = batch.len(), "a batch failed, and nothing of it was stored");
    }
    after();
    for request in batch {
        request.answer(committed.as_ref().map(|_| ()).map_err(Clone::clone));
    }
    if let Ok(seq) = committed {
        announce.send_if_modified(|last| {
            let moved = seq > *last;
            *last = (*last).max(seq);
            moved
        });
    }
}

/// A request that waits for the writer.
struct Envelope {
    lane: Lane,
    cost: u64,
    request: Box<dyn Request>,
    /// Released when the request was run.
    place: OwnedSemaphorePermit,
}

/// The handle of the writer thread, which ends when this is dropped.
pub(super) struct Writer {
    queue: Sender<Envelope>,
    places: Mutex<HashMap<Lane, Arc<Semaphore>>>,
}

impl Writer {
    /// Starts the thread that owns the writer's connection.
    pub(super) fn start(
        path: &str,
        connection: Connection,
        ports: Ports,
        announce: watch::Sender<Seq>,
    ) -> Result<Self, StoreError> {
        // Bounded by the permits of the lanes.
        let (queue, waiting) = channel();
        let path = path.to_owned();
        spawn("store-writer", move || run(&path, connection, &ports, &announce, &waiting))?;
        Ok(Self { queue, places: Mutex::default() })
    }

    /// Runs `work` in the next transaction; returns when that is committed.
    pub(super) async fn commit<T, W>(&self, ticket: Ticket, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let Ticket { lane, cost } = ticket;
        let places = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(lane.clone()).or_insert_with(|| Arc::new(Semaphore::new(PLACES))).clone()
        };
        let place = places.acquire_owned().await.map_err(|_| stopped())?;
        let (request, answer) = request(work);
        self.queue.send(Envelope { lane, cost, request, place }).map_err(|_| stopped())?;
        answer.get().await
    }
}

/// The callers of the last batch. Those that were answered come back within a fraction of a slow commit: a commit for the
/// first of them alone would make all others wait for two commits instead of one.
#[derive(Default)]
struct Company {
    /// Number of callers that were answered by the last commit or were waiting then.
    callers: usize,
    /// Duration of the last commit.
    took: Duration,
}

impl Company {
    /// How long the next batch waits for those callers. A disk that is faster than a caller needs no company.
    fn patience(&self) -> Duration {
        if self.callers < 2 || self.took < SLOW_COMMIT { Duration::ZERO } else { (self.took / 4).min(PATIENCE) }
    }
}

fn run(path: &str, connection: Connection, ports: &Ports, announce: &watch::Sender<Seq>, waiting: &Receiver<Envelope>) {
    let mut lanes = Lanes::default();
    // None after a failure that leaves the connection in doubt; the next batch opens another one.
    let mut connection = Some(connection);
    let mut company = Company::default();
    let add = |lanes: &mut Lanes<_>, Envelope { lane, cost, request, place }| lanes.push(lane, cost, (request, place));
    loop {
        if lanes.is_empty() {
            match waiting.recv() {
                Ok(envelope) => add(&mut lanes, envelope),
                Err(_) => break,
            }
        }
        while let Ok(envelope) = waiting.try_recv() {
            add(&mut lanes, envelope);
        }
        let patience = Instant::now() + company.patience();
        while lanes.len() < company.callers
            && let Ok(envelope) = waiting.recv_timeout(patience.saturating_duration_since(Instant::now()))
        {
            add(&mut lanes, envelope);
        }
        let (batch, places): (Vec<_>, Vec<_>) = lanes.batch().into_iter().unzip();
        let (begun, size) = (Instant::now(), batch.len());
        let committed = || {
            while let Ok(envelope) = waiting.try_recv() {
                add(&mut lanes, envelope);
            }
            company = Company { callers: size + lanes.len(), took: begun.elapsed() };
        };
        let opened = match connection.take() {
            Some(open) => Ok(open),
            None => connect(path, Role::Writer, BUSY).map_err(StoreError::from),
        };
        match opened {
            Ok(mut open) => {
                serve(Ok(&mut open), ports, announce, batch, committed);
                connection = Some(open).filter(Connection::is_autocommit);
            }
            Err(error) => serve(Err(error), ports, announce, batch, committed),
        }
        drop(places);
    }
    if let Some(Err((_, error))) = connection.map(Connection::close) {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slow_commit_of_several_callers_is_followed_by_a_wait() {
        let patience = |callers, ms| Company { callers, took: Duration::from_millis(ms) }.patience();
        assert_eq!(Company::default().patience(), Duration::ZERO);
        assert_eq!(patience(1, 1_000), Duration::ZERO, "nobody else is there to be waited for");
        assert_eq!(patience(16, 1), Duration::ZERO, "the disk is faster than the callers");
        assert_eq!(patience(16, 6), Duration::from_micros(1_500), "a quarter of the commit");
        assert_eq!(patience(16, 1_000), PATIENCE);
    }
}
