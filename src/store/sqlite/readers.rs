//! Reads: each is one closure that sees one state of the database, run by one of a few threads.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{BUSY, Role, connect, spawn};
use super::query::Query as _;
use crate::store::StoreError;

/// Number of concurrent reads. A read takes micro- to milliseconds; a snapshot occupies a thread for its duration.
const READERS: usize = 4;

type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) + Send>;

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; none when there will be no more.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The reader threads. They end when this is dropped.
pub(super) struct Readers(Arc<Queue>);

impl Readers {
    /// Starts the threads on opened connections.
    pub(super) fn start(path: &str, first: Connection) -> Result<Self, StoreError> {
        let readers = Self(Arc::default());
        let mut first = Some(first);
        for _ in 0..READERS {
            // The other connections are opened on demand.
            let (queue, path, connection) = (Arc::clone(&readers.0), path.to_owned(), first.take());
            spawn("store-reader", move || serve(&queue, &path, connection))?;
        }
        Ok(readers)
    }

    /// Runs a read and returns its result.
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !reply.is_closed() {
                let _gone = reply.send(connection.and_then(|db| guarded(|| in_one_state(db, work))));
            }
        });
        self.0.lock().jobs.push_back(job);
        self.0.changed.notify_one();
        answer.await.map_err(|_| StoreError::Unavailable { problem: "the store is shutting down".to_owned() })?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

fn serve(queue: &Queue, path: &str, mut connection: Option<Connection>) {
    while let Some(job) = queue.next() {
        let opened = match connection.take() {
            Some(open) => Ok(open),
            None => connect(path, Role::Reader, BUSY).map_err(StoreError::from),
        };
        match opened {
            Err(error) => job(Err(error)),
            Ok(open) => {
                job(Ok(&open));
                // A connection that is still inside a transaction is closed.
                connection = Some(open).filter(Connection::is_autocommit);
            }
        }
    }
}

/// Runs all statements of a read on one state of the database.
fn in_one_state<T>(db: &Connection, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    db.run("BEGIN", [])?;
    let result = work(db);
    // SQLite may have rolled back by itself (disk, memory), and what it said then counts. The owner closes a connection
    // that cannot roll back.
    if !db.is_autocommit() {
        let _ = db.run("ROLLBACK", []);
    }
    result
}

/// Turns a panic into an error, so that the thread survives.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let panicked = |_| Err(StoreError::Internal { problem: "a change function panicked".to_owned() });
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_a_read_is_answered_also_when_sqlite_has_rolled_back_by_itself() {
        let db = Connection::open_in_memory().unwrap();
        let lost = StoreError::Unavailable { problem: "disk I/O error".to_owned() };
        let answer: Result<(), StoreError> = in_one_state(&db, |db| {
            db.run("ROLLBACK", [])?;
            Err(lost.clone())
        });
        assert_eq!(answer, Err(lost));
        assert!(db.is_autocommit());
    }
}
