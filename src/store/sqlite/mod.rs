//! The store on SQLite: the only module that knows SQL.
//!
//! In production one thread writes and a few read, each on its own connection; a whole request or read is one closure
//! ([ADR 030](../../../docs/decisions/030-sqlite-on-threads-of-its-own.md)). For simulations and tests an in-memory
//! database runs the same closures inline.

pub(super) mod audit;
pub(super) mod commands;
mod connection;
pub(super) mod drift;
pub(super) mod erase;
pub(super) mod events;
#[cfg(test)]
mod faults;
mod file;
mod filter;
pub(super) mod groups;
pub(super) mod guard;
pub(super) mod history;
pub(super) mod leadership;
pub(super) mod ledger;
pub(super) mod list;
pub(super) mod meant;
pub(super) mod members;
#[cfg(test)]
mod memory;
pub(super) mod meta;
pub(super) mod names;
pub(super) mod orphans;
pub(super) mod owners;
pub(super) mod pins;
pub(super) mod prune;
mod query;
mod readers;
mod refold;
pub(super) mod refusals;
pub(super) mod resources;
pub(super) mod scan;
mod schema;
pub(super) mod specs;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
pub(super) mod tests;
mod transaction;
pub(super) mod usage;
pub(super) mod users;
mod writer;

use std::path::Path;
use std::sync::Arc;

use rusqlite::MAIN_DB;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::lanes::Ticket;
use super::{StoreError, private};
use crate::model::{Clock, KEY_BYTES, Pseudonyms, Seq};
use connection::{BUSY, Role, cannot_open, connect, off_thread, path_of};
use readers::Readers;
use transaction::Ports;
use writer::Writer;

#[cfg(test)]
pub(crate) use faults::StoreFaults;
#[cfg(test)]
pub(crate) use memory::MemoryDatabase;
pub(super) use rusqlite::Connection;
pub(super) use transaction::Transaction;

/// Number of stream items that are sent together.
const BATCH: usize = 500;

/// Number of such batches that may wait for the receiver.
const BATCHES: usize = 2;

/// Receives the items of a stream one by one; fails when the receiver is gone.
pub(super) type Emit<'e, T> = &'e mut dyn FnMut(T) -> Result<(), StoreError>;

/// An open database.
pub(super) struct Sqlite {
    committed: watch::Receiver<Seq>,
    run: Run,
}

/// The place where closures run.
enum Run {
    Threads {
        path: String,
        readers: Readers,
        writer: Writer,
    },
    #[cfg(test)]
    Inline {
        database: MemoryDatabase,
        ports: Ports,
        announce: watch::Sender<Seq>,
        faults: StoreFaults,
    },
}

/// Identity of a database.
pub(super) struct Identity {
    pub(super) id: Uuid,
    pub(super) pseudonyms: Pseudonyms,
}

impl Sqlite {
    /// Opens or creates the database at `url` (`sqlite:PATH`) and brings its schema up to date.
    pub(super) async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<(Self, Identity), StoreError> {
        let path = path_of(url)?.to_owned();
        off_thread(move || Self::open_file(path, clock)).await
    }

    fn open_file(path: String, clock: Arc<dyn Clock>) -> Result<(Self, Identity), StoreError> {
        if let Err(error) = private::create(Path::new(&path)) {
            tracing::debug!(%error, "cannot create the database file, or write to it");
        }
        let db = connect(&path, Role::Writer, BUSY).map_err(|error| cannot_open(&path, &error))?;
        if db.is_readonly(MAIN_DB).map_err(|error| cannot_open(&path, &error))? {
            return Err(StoreError::CannotOpen { path, problem: "the file cannot be written".to_owned() });
        }
        schema::migrate(&db, &path)?;
        let id = meta::store_id(&db, Uuid::new_v4())?;
        // Only now the file is known to be a database of rolecall.
        private::tighten_database(Path::new(&path));
        let key: [u8; KEY_BYTES] = rand::random();
        let pseudonyms = meta::pseudonyms(&db, key)?;
        let highest = events::highest(&db)?;
        let reader = connect(&path, Role::Reader, BUSY).map_err(|error| cannot_open(&path, &error))?;
        let readers = Readers::start(&path, reader)?;
        let (announce, committed) = watch::channel(highest);
        let ports = Ports { clock, new_id: Arc::new(Uuid::new_v4) };
        let writer = Writer::start(&path, db, ports, announce)?;
        let sqlite = Self { committed, run: Run::Threads { path, readers, writer } };
        Ok((sqlite, Identity { id, pseudonyms }))
    }

    /// Opens an in-memory database, whose statements run in the caller's poll.
    #[cfg(test)]
    pub(super) fn open_inline(
        database: &MemoryDatabase,
        clock: Arc<dyn Clock>,
        faults: StoreFaults,
    ) -> Result<(Self, Identity), StoreError> {
        let (identity, highest) = {
            let db = database.lock();
            let id = meta::store_id(&db, database.new_id())?;
            let mut key = [0; KEY_BYTES];
            for byte in key.chunks_mut(16) {
                byte.copy_from_slice(&database.new_id().into_bytes()[..byte.len()]);
            }
            let pseudonyms = meta::pseudonyms(&db, key)?;
            (Identity { id, pseudonyms }, events::highest(&db)?)
        };
        let (announce, committed) = watch::channel(highest);
        let ids = database.clone();
        let ports = Ports { clock, new_id: Arc::new(move || ids.new_id()) };
        let run = Run::Inline { database: database.clone(), ports, announce, faults };
        Ok((Self { committed, run }, identity))
    }

    /// Runs a read, which sees one state of the database.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        match &self.run {
            Run::Threads { readers, .. } => readers.call(work).await,
            #[cfg(test)]
            Run::Inline { database, faults, .. } => {
                tokio::task::yield_now().await;
                faults.while_running().await;
                faults.admit()?;
                readers::guarded(|| work(&database.lock()))
            }
        }
    }

    /// Like [`Sqlite::read`], for results that are too large to be collected: items go to `sink` as they are read.
    pub(super) async fn stream<T, R, F>(&self, work: F, sink: &mut (dyn FnMut(T) + Send)) -> Result<R, StoreError>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnOnce(&Connection, Emit<'_, T>) -> Result<R, StoreError> + Send + 'static,
    {
        let readers = match &self.run {
            Run::Threads { readers, .. } => readers,
            #[cfg(test)]
            Run::Inline { database, faults, .. } => {
                tokio::task::yield_now().await;
                faults.while_running().await;
                faults.admit()?;
                let mut items = Vec::new();
                let mut emit = |item| {
                    items.push(item);
                    Ok(())
                };
                let result = readers::guarded(|| work(&database.lock(), &mut emit));
                items.into_iter().for_each(sink);
                return result;
            }
        };
        let (send, mut receive) = mpsc::channel::<Vec<T>>(BATCHES);
        let gone = || StoreError::Unavailable { problem: "nobody takes what is read".to_owned() };
        let reading = readers.call(move |db| {
            let mut batch = Vec::with_capacity(BATCH);
            let result = work(db, &mut |item| {
                batch.push(item);
                if batch.len() < BATCH {
                    return Ok(());
                }
                let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                send.blocking_send(full).map_err(|_| gone())
            })?;
            send.blocking_send(batch).map_err(|_| gone())?;
            Ok(result)
        });
        let taking = async {
            while let Some(batch) = receive.recv().await {
                batch.into_iter().for_each(&mut *sink);
            }
        };
        tokio::join!(reading, taking).0
    }

    /// Runs `work` in the next transaction; returns when that is committed.
    pub(super) async fn write<T, W>(&self, ticket: Ticket, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        match &self.run {
            Run::Threads { writer, .. } => writer.commit(ticket, work).await,
            #[cfg(test)]
            Run::Inline { database, ports, announce, faults } => {
                // The caller may go away before its request is run, and also before it receives the result.
                tokio::task::yield_now().await;
                faults.while_running().await;
                faults.admit()?;
                let (request, answer) = writer::request(work);
                writer::serve(Ok(&mut database.lock()), ports, announce, vec![request], || {});
                faults.committed();
                faults.while_running().await;
                tokio::task::yield_now().await;
                answer.get().await
            }
        }
    }

    /// The last position of the event log after each commit that moved it.
    pub(super) fn subscribe(&self) -> watch::Receiver<Seq> {
        self.committed.clone()
    }

    /// Rewrites the file and empties its log.
    pub(super) async fn rewrite_file(&self) -> Result<(), StoreError> {
        match &self.run {
            Run::Threads { path, .. } => {
                let path = path.clone();
                off_thread(move || file::rewrite(&path)).await
            }
            #[cfg(test)]
            Run::Inline { database, .. } => file::rewrite_in_memory(&database.lock()),
        }
    }
}
