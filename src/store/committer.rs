//! The one writer: requests of many tasks share a transaction, each in a savepoint of its own, and each is answered
//! after the commit. When the commit fails, every one of them hears so. Who is served next is a matter of [`super::lanes`].

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, query};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::audit::{self, AuditDraft};
use super::lanes::{Lane, Lanes, REQUEST};
use super::sql::{Columns, json, nanos};
use super::{Epoch, StoreError, Usage, events, groups};
use crate::model::{Clock, DirectoryChange, GroupId, ProviderName, Seq};

/// How many requests of one lane may wait; more wait outside, which is back-pressure for their callers and for nobody else.
const PLACES: usize = 256;

/// One waiting request, whatever it answers.
trait Request: Send {
    /// The group that the work looks up first, if any: it is read in the statement that makes room for the request.
    fn first(&self) -> Option<(&ProviderName, GroupId)>;

    /// Does the work and keeps the answer; says how the work ended.
    fn run<'t>(&'t mut self, transaction: &'t mut Transaction) -> BoxFuture<'t, Result<(), StoreError>>;

    /// Sends the answer; an error of the commit replaces it.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Waiting<T, W> {
    first: Option<(ProviderName, GroupId)>,
    work: Option<W>,
    result: Result<T, StoreError>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Request for Waiting<T, W>
where
    T: Send,
    W: for<'t> FnOnce(&'t mut Transaction) -> BoxFuture<'t, Result<T, StoreError>> + Send,
{
    fn first(&self) -> Option<(&ProviderName, GroupId)> {
        self.first.as_ref().map(|(provider, group)| (provider, *group))
    }

    fn run<'t>(&'t mut self, transaction: &'t mut Transaction) -> BoxFuture<'t, Result<(), StoreError>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return Ok(()) };
            // A caller's function runs in here; its fault must not take the writer with it.
            let done = AssertUnwindSafe(async { work(transaction).await }).catch_unwind().await;
            self.result =
                done.unwrap_or_else(|_| Err(StoreError::Internal { problem: "a change function panicked".to_owned() }));
            match &self.result {
                Ok(_) => Ok(()),
                Err(error) => Err(error.clone()),
            }
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        // Whoever asked may have gone away; what was committed stays committed.
        let _gone = self.reply.send(match committed {
            Ok(()) => self.result,
            Err(error) => Err(error),
        });
    }
}

/// A request on its way to the writer.
struct Envelope {
    lane: Lane,
    cost: u64,
    request: Box<dyn Request>,
    /// Given back when the request is answered.
    place: OwnedSemaphorePermit,
}

/// Who asks the writer, and how much of it.
pub(super) struct Ticket {
    pub(super) lane: Lane,
    /// As [`super::lanes::cost`] has it.
    pub(super) cost: u64,
    /// The group that the work looks up first with [`Transaction::group`], if any.
    pub(super) first: Option<GroupId>,
}

impl Ticket {
    /// One of rolecall itself.
    pub(super) fn engine(cost: u64) -> Self {
        Self { lane: Lane::Engine, cost, first: None }
    }

    /// One of an identity provider.
    pub(super) fn provider(provider: &ProviderName, cost: u64) -> Self {
        Self { lane: Lane::Provider(provider.clone()), cost, first: None }
    }

    /// For work that first looks up this group.
    pub(super) fn on(self, group: GroupId) -> Self {
        Self { first: Some(group), ..self }
    }
}

/// The way to the committer.
#[derive(Clone)]
pub(super) struct Committer {
    queue: mpsc::UnboundedSender<Envelope>,
    places: Arc<Mutex<HashMap<Lane, Arc<Semaphore>>>>,
    committed: watch::Receiver<Seq>,
}

impl Committer {
    /// Starts the task that owns the writer's connection. It ends when the last [`Committer`] is dropped.
    pub(super) fn start(
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        clock: Arc<dyn Clock>,
        highest: Seq,
    ) -> Self {
        // Bounded by the places of the lanes.
        let (queue, waiting) = mpsc::unbounded_channel();
        let (announce, committed) = watch::channel(highest);
        let writer = Writer { options, connection: Some(connection), clock, announce };
        tokio::spawn(writer.run(waiting));
        Self { queue, places: Arc::default(), committed }
    }

    /// Has `work` of rolecall itself done in the next transaction; answers when that is committed.
    pub(super) async fn commit<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'t> FnOnce(&'t mut Transaction) -> BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
    {
        self.commit_as(Ticket::engine(REQUEST), work).await
    }

    /// As [`Committer::commit`], in the lane of somebody.
    pub(super) async fn commit_as<T, W>(&self, ticket: Ticket, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'t> FnOnce(&'t mut Transaction) -> BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
    {
        let stopped = || StoreError::Unavailable { problem: "the store is shutting down".to_owned() };
        let Ticket { lane, cost, first } = ticket;
        let places = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(lane.clone()).or_insert_with(|| Arc::new(Semaphore::new(PLACES))).clone()
        };
        let place = places.acquire_owned().await.map_err(|_| stopped())?;
        let first = match (&lane, first) {
            (Lane::Provider(provider), Some(group)) => Some((provider.clone(), group)),
            _ => None,
        };
        let (reply, answer) = oneshot::channel();
        let result = Err(StoreError::Internal { problem: "the request was never run".to_owned() });
        let request = Box::new(Waiting { first, work: Some(work), result, reply });
        self.queue.send(Envelope { lane, cost, request, place }).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// The last position of the event log after each commit that moved it.
    pub(super) fn subscribe(&self) -> watch::Receiver<Seq> {
        self.committed.clone()
    }
}

struct Writer {
    options: SqliteConnectOptions,
    /// None after a failure that leaves the connection in doubt; the next batch opens another.
    connection: Option<SqliteConnection>,
    clock: Arc<dyn Clock>,
    announce: watch::Sender<Seq>,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::UnboundedReceiver<Envelope>) {
        let mut lanes = Lanes::default();
        let add =
            |lanes: &mut Lanes<_>, Envelope { lane, cost, request, place }| lanes.push(lane, cost, (request, place));
        loop {
            if lanes.is_empty() {
                match waiting.recv().await {
                    Some(envelope) => add(&mut lanes, envelope),
                    None => break,
                }
            }
            while let Ok(envelope) = waiting.try_recv() {
                add(&mut lanes, envelope);
            }
            let (mut batch, places): (Vec<_>, Vec<_>) = lanes.batch().into_iter().unzip();
            let committed = self.commit(&mut batch).await;
            if let Err(error) = &committed {
                tracing::warn!(reason = error.reason(), %error, requests = batch.len(), "nothing of a batch was stored");
            }
            drop(places);
            for request in batch {
                request.answer(committed.clone());
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }

    async fn commit(&mut self, batch: &mut [Box<dyn Request>]) -> Result<(), StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let first = batch.first().and_then(|request| request.first());
        let mut transaction = Transaction::begin(connection, self.clock.now(), first).await?;
        match run_all(&mut transaction, batch).await {
            Ok(()) => {
                if transaction.seq > *self.announce.borrow() {
                    self.announce.send_replace(transaction.seq);
                }
                self.connection = Some(transaction.connection);
                Ok(())
            }
            Err(error) => {
                // The database may have rolled back by itself (full disk): then there is nothing to roll back, and
                // that is an error too. A fresh connection is right in either case.
                let mut connection = transaction.connection;
                if query("ROLLBACK").execute(&mut connection).await.is_ok() {
                    self.connection = Some(connection);
                }
                Err(error)
            }
        }
    }
}

async fn run_all(transaction: &mut Transaction, batch: &mut [Box<dyn Request>]) -> Result<(), StoreError> {
    for (index, request) in batch.iter_mut().enumerate() {
        if index > 0 {
            transaction.next(request.first()).await?;
        }
        let mark = transaction.mark();
        match request.run(transaction).await {
            Ok(()) => {}
            // The transaction itself is lost with these.
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Damaged { what: "database", .. })) => {
                return Err(error);
            }
            Err(_) => {
                transaction.touched = None;
                query("ROLLBACK TO request").execute(&mut transaction.connection).await?;
                transaction.back_to(mark);
            }
        }
    }
    transaction.finish().await
}

/// An open write transaction. Events, audit rows and counters are gathered and written at its end, all at once.
pub(super) struct Transaction {
    /// The writer's connection.
    pub(super) connection: SqliteConnection,
    /// When the batch began: the time of everything in it.
    pub(super) now: Timestamp,
    epoch: Epoch,
    seq: Seq,
    audit_seq: i64,
    audit_hash: String,
    events: Vec<(Seq, ProviderName, i64, String)>,
    audit: Vec<AuditDraft>,
    counters: BTreeMap<ProviderName, Usage>,
    /// The row of the group that the request begins with, as [`groups::ONE`] reads it.
    first: Option<(ProviderName, GroupId, Option<SqliteRow>)>,
    /// What is left to write of the group that the request changed.
    touched: Option<Touched>,
}

/// A group whose members changed. Nothing of it is unique, so writing it can wait for the next statement anyway.
pub(super) struct Touched {
    pub(super) provider: ProviderName,
    pub(super) group: GroupId,
    pub(super) member_count: i64,
    pub(super) version: i64,
}

/// What was gathered when a request began.
struct Mark {
    epoch: Epoch,
    seq: Seq,
    events: usize,
    audit: usize,
    counters: BTreeMap<ProviderName, Usage>,
}

/// Opens transaction and first savepoint, and reads where the two logs end and whose turn it is: another process may
/// have written.
const BEGIN: &str = concat!(
    "BEGIN IMMEDIATE; SAVEPOINT request; SELECT ",
    events::highest_seq!(),
    ", a.seq, a.hash, coalesce((SELECT epoch FROM leadership), 0) \
     FROM (SELECT 1) LEFT JOIN (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1) a"
);

static BEGIN_ON: LazyLock<String> = LazyLock::new(|| format!("{BEGIN}; {}", groups::ONE));

const NEXT: &str = "RELEASE request; SAVEPOINT request";

const LOGS: &str = "\
    INSERT INTO events (seq, provider, at, change) \
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?); \
    INSERT INTO counters (provider, users, groups, members, bytes) \
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) WHERE true \
        ON CONFLICT (provider) DO UPDATE SET users = users + excluded.users, groups = groups + excluded.groups, \
            members = members + excluded.members, bytes = bytes + excluded.bytes;";

/// Writes both logs and the counters, and commits: one way to the database and back.
pub(super) static FINISH: LazyLock<String> = LazyLock::new(|| format!("{LOGS} {} COMMIT", audit::APPEND));

/// The same after a request that left a group to be written.
pub(super) static FINISH_TOUCHED: LazyLock<String> =
    LazyLock::new(|| format!("{}; {}", groups::UPDATE_MEMBERS, FINISH.as_str()));

type Statement<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

impl Touched {
    /// Binds the parameters of [`groups::UPDATE_MEMBERS`].
    fn bind<'q>(&'q self, statement: Statement<'q>, now: i64) -> Statement<'q> {
        statement
            .bind(self.member_count)
            .bind(self.version)
            .bind(now)
            .bind(self.provider.as_str())
            .bind(self.group.0.as_bytes().as_slice())
    }
}

impl Transaction {
    async fn begin(
        mut connection: SqliteConnection,
        now: Timestamp,
        first: Option<(&ProviderName, GroupId)>,
    ) -> Result<Self, StoreError> {
        let (row, first) = match first {
            None => (query(BEGIN).fetch_one(&mut connection).await?, None),
            Some((provider, group)) => {
                let statement = query(AssertSqlSafe(BEGIN_ON.as_str()));
                let statement = statement.bind(provider.as_str()).bind(group.0.as_bytes().as_slice());
                let mut rows = statement.fetch_all(&mut connection).await?.into_iter();
                let row = rows.next().ok_or(sqlx::Error::RowNotFound)?;
                (row, Some((provider.clone(), group, rows.next())))
            }
        };
        let mut columns = Columns::of(&row, "audit");
        let seq = columns.integer()?;
        let audit_seq = columns.integer_or_none()?.unwrap_or(0);
        let audit_hash = columns.text_or_none()?.unwrap_or_default();
        let epoch = Epoch::of(columns.integer()?);
        Ok(Self {
            connection,
            now,
            epoch,
            seq,
            audit_seq,
            audit_hash,
            events: Vec::new(),
            audit: Vec::new(),
            counters: BTreeMap::new(),
            first,
            touched: None,
        })
    }

    /// Makes room for the next request.
    async fn next(&mut self, first: Option<(&ProviderName, GroupId)>) -> Result<(), StoreError> {
        let mut sql = String::new();
        let touched = self.touched.take();
        if touched.is_some() {
            sql.push_str(groups::UPDATE_MEMBERS);
            sql.push_str("; ");
        }
        sql.push_str(NEXT);
        if first.is_some() {
            sql.push_str("; ");
            sql.push_str(groups::ONE);
        }
        let mut statement = query(AssertSqlSafe(sql));
        if let Some(touched) = &touched {
            statement = touched.bind(statement, nanos(self.now));
        }
        self.first = match first {
            None => {
                statement.execute(&mut self.connection).await?;
                None
            }
            Some((provider, group)) => {
                let statement = statement.bind(provider.as_str()).bind(group.0.as_bytes().as_slice());
                let row = statement.fetch_optional(&mut self.connection).await?;
                Some((provider.clone(), group, row))
            }
        };
        Ok(())
    }

    /// The row of a group, as [`groups::ONE`] reads it. The first look-up of a request that began with it costs nothing.
    pub(super) async fn group(&mut self, p: &ProviderName, id: GroupId) -> Result<Option<SqliteRow>, StoreError> {
        if let Some((provider, group, row)) = self.first.take()
            && provider == *p
            && group == id
        {
            return Ok(row);
        }
        let id = id.0.as_bytes().as_slice();
        Ok(query(groups::ONE).bind(p.as_str()).bind(id).fetch_optional(&mut self.connection).await?)
    }

    /// Leaves the row of a group to be written before anybody can see that it is not. The last word of a request.
    pub(super) fn touch(&mut self, touched: Touched) {
        self.touched = Some(touched);
    }

    fn mark(&self) -> Mark {
        Mark {
            epoch: self.epoch,
            seq: self.seq,
            events: self.events.len(),
            audit: self.audit.len(),
            counters: self.counters.clone(),
        }
    }

    fn back_to(&mut self, mark: Mark) {
        self.epoch = mark.epoch;
        self.seq = mark.seq;
        self.events.truncate(mark.events);
        self.audit.truncate(mark.audit);
        self.counters = mark.counters;
    }

    /// The time of this transaction as it is stored.
    pub(super) fn now_nanos(&self) -> i64 {
        nanos(self.now)
    }

    /// The epoch of the database, which nobody else changes before this transaction ends.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A request of this transaction began this epoch.
    pub(super) fn led_under(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Appends to the event log; answers the position.
    pub(super) fn event(&mut self, provider: &ProviderName, change: &DirectoryChange) -> Result<Seq, StoreError> {
        let change = json(change)?;
        let seq = self.next_seq();
        self.events.push((seq, provider.clone(), nanos(self.now), change));
        Ok(seq)
    }

    /// The last position that was taken.
    pub(super) fn seq(&self) -> Seq {
        self.seq
    }

    /// Takes so many positions at once, for rows that were written with the positions that follow [`Transaction::seq`].
    pub(super) fn take_seqs(&mut self, count: u64) {
        self.seq = self.seq.saturating_add(Seq::try_from(count).unwrap_or(Seq::MAX));
    }

    /// The next position of the one sequence of events and history. Whoever takes it writes a row with it.
    pub(super) fn next_seq(&mut self) -> Seq {
        self.seq += 1;
        self.seq
    }

    /// Appends to the audit log.
    pub(super) fn audit(&mut self, draft: AuditDraft) {
        self.audit.push(draft);
    }

    /// Counts what came or went.
    pub(super) fn count(&mut self, provider: &ProviderName, change: Usage) {
        let counter = self.counters.entry(provider.clone()).or_default();
        *counter = counter.plus(change);
    }

    /// What came or went of this provider in this transaction.
    pub(super) fn counted(&self, provider: &ProviderName) -> Usage {
        self.counters.get(provider).copied().unwrap_or_default()
    }

    async fn finish(&mut self) -> Result<(), StoreError> {
        let touched = self.touched.take();
        if touched.is_none() && self.events.is_empty() && self.audit.is_empty() && self.counters.is_empty() {
            query("COMMIT").execute(&mut self.connection).await?;
            return Ok(());
        }
        let counters: Vec<_> =
            self.counters.iter().map(|(name, all)| (name, all.users, all.groups, all.members, all.bytes)).collect();
        let (people, rows) = audit::chain(self.audit_seq, &self.audit_hash, &self.audit)?;
        let statement = match &touched {
            None => query(AssertSqlSafe(FINISH.as_str())),
            Some(touched) => touched.bind(query(AssertSqlSafe(FINISH_TOUCHED.as_str())), nanos(self.now)),
        };
        statement
            .bind(json(&self.events)?)
            .bind(json(&counters)?)
            .bind(people)
            .bind(rows)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}
