//! The guard's count of people, over documents, passes and restarts, and what it holds.
//!
//! A person whose removal passed stands in `guard_removals` for an hour. A removal that is held is marked at its claim in
//! the ledger, and goes with it. One transaction decides for one pass, so that passes on many documents at once cannot
//! each use up the limit; it costs look-ups for the people who are asked about, and counts only as far as the limit.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::audit::AuditDraft;
use super::committer::Transaction;
use super::sql::{Columns, id_list, json, nanos};
use super::{Store, StoreError};
use crate::model::{
    AuditEntry, DocumentKey, GUARD_WINDOW, GroupId, Judgement, ProviderName, Removal, RemovalLimit, RemovalLimits,
    RemovalScope, ScopeCounts, Subject, UserId,
};

/// Which of the ids belong to which provider, deleted people included.
const PROVIDERS: &str = "SELECT value, provider FROM json_each(?) CROSS JOIN counters \
    WHERE EXISTS (SELECT 1 FROM users u WHERE u.provider = counters.provider AND u.id = unhex(value)) \
       OR EXISTS (SELECT 1 FROM tombstones t WHERE t.provider = counters.provider AND t.id = unhex(value))";

/// What is held or was released on a document.
const MARKED: &str = "SELECT role, condition_hash, member_key, mapping, hex(subject_id), held_scope, held_at, \
    released_at IS NOT NULL FROM claims WHERE document = ? AND held_scope IS NOT NULL";

/// People of the list whose removal is held anywhere, and since when.
const LATCHED: &str = "SELECT hex(subject_id), min(held_at) FROM claims INDEXED BY claims_held \
    WHERE held_scope = ? AND released_at IS NULL AND subject_id IN (SELECT unhex(value) FROM json_each(?)) \
    GROUP BY subject_id";

/// People of the list whose removal passed within the hour.
const PASSED: &str = "SELECT hex(subject) FROM guard_removals \
    WHERE scope = ? AND at > ? AND subject IN (SELECT unhex(value) FROM json_each(?))";

/// How many passed within the hour, up to a limit, and since when.
const PASSED_COUNT: &str = "SELECT count(*), min(at) FROM \
    (SELECT at FROM guard_removals WHERE scope = ? AND at > ? ORDER BY at LIMIT ?)";

/// How many others are held since within the hour, up to a limit, and since when. Walks from person to person.
const HELD_COUNT: &str = "WITH RECURSIVE person (id) AS ( \
        SELECT min(subject_id) FROM claims INDEXED BY claims_held WHERE held_scope = ?1 AND released_at IS NULL \
        UNION ALL \
        SELECT (SELECT min(subject_id) FROM claims INDEXED BY claims_held \
            WHERE held_scope = ?1 AND released_at IS NULL AND subject_id > person.id) \
        FROM person WHERE person.id IS NOT NULL), \
    since (id, at) AS ( \
        SELECT id, (SELECT min(held_at) FROM claims INDEXED BY claims_held \
            WHERE held_scope = ?1 AND released_at IS NULL AND subject_id = person.id) \
        FROM person WHERE id IS NOT NULL) \
    SELECT count(*), min(at) FROM (SELECT at FROM since WHERE at > ?2 AND NOT EXISTS \
        (SELECT 1 FROM guard_removals r WHERE r.scope = ?1 AND r.subject = since.id AND r.at > ?2) LIMIT ?3)";

/// The people with claims, one after the other: of one mapping, or of all.
const OF_MAPPING: &str = "SELECT min(subject_id) FROM claims INDEXED BY claims_by_mapping WHERE mapping = ?5";
const OF_ANY: &str = "SELECT min(subject_id) FROM claims INDEXED BY claims_by_subject WHERE ?5 IS NOT NULL";
/// True when the person has a grant that was there before.
const GRANTED: &str = "EXISTS (SELECT 1 FROM claims c INDEXED BY claims_by_subject JOIN grants g \
        ON g.document = c.document AND g.role = c.role AND g.condition_hash = c.condition_hash \
        AND g.member_key = c.member_key \
    WHERE c.subject_id = person.id AND g.state = 'owned' AND (g.acknowledged_at IS NULL OR g.acknowledged_at < ?4)";
const OF_PROVIDER: &str = "(EXISTS (SELECT 1 FROM users u WHERE u.provider = ?5 AND u.id = person.id) \
    OR EXISTS (SELECT 1 FROM tombstones t WHERE t.provider = ?5 AND t.id = person.id))";

const HOLD: &str = "UPDATE claims SET held_scope = j.value ->> 5, held_at = j.value ->> 6, released_at = NULL \
    FROM json_each(?) j WHERE document = ? AND role = j.value ->> 0 AND condition_hash = j.value ->> 1 \
    AND member_key = j.value ->> 2 AND mapping = j.value ->> 3 AND subject_id = unhex(j.value ->> 4)";

const CLEAR: &str = "UPDATE claims SET held_scope = NULL, held_at = NULL, released_at = NULL \
    FROM json_each(?) j WHERE document = ? AND role = j.value ->> 0 AND condition_hash = j.value ->> 1 \
    AND member_key = j.value ->> 2 AND mapping = j.value ->> 3 AND subject_id = unhex(j.value ->> 4)";

const RELEASE: &str = "UPDATE claims SET released_at = ? \
    FROM json_each(?) j WHERE document = ? AND role = j.value ->> 0 AND condition_hash = j.value ->> 1 \
    AND member_key = j.value ->> 2 AND mapping = j.value ->> 3 AND subject_id = unhex(j.value ->> 4) \
    AND held_scope IS NOT NULL";

/// The key of a claim of one document, in the order in which the statements take it apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Key(String, String, String, String, String);

impl Key {
    fn of(removal: &Removal) -> Self {
        let Removal { grant, claim, .. } = removal;
        Self(
            grant.role.as_str().to_owned(),
            grant.condition.as_str().to_owned(),
            grant.member.as_str().to_owned(),
            claim.mapping.to_string(),
            id(claim.subject).simple().to_string(),
        )
    }
}

/// A mark at a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    scope: String,
    at: i64,
    released: bool,
}

fn id(subject: Subject) -> Uuid {
    match subject {
        Subject::User(UserId(id)) | Subject::Group(GroupId(id)) => id,
    }
}

fn parse(text: &str) -> Result<Uuid, StoreError> {
    Uuid::try_parse(text).map_err(|error| StoreError::Damaged { what: "claims", problem: error.to_string() })
}

fn limited(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The hour that is looked at.
#[derive(Clone, Copy)]
struct Hour {
    now: i64,
    /// What is not later than this does not count.
    before: i64,
}

impl Store {
    /// Decides which of these removals on a document are held, and remembers that. What is not asked about any more is
    /// not held any more either.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is decided then.
    pub async fn guard(
        &self,
        document: &DocumentKey,
        asks: Vec<Removal>,
        limits: RemovalLimits,
    ) -> Result<BTreeSet<Removal>, StoreError> {
        let document = document.to_string();
        self.commit_leading(move |tx| Box::pin(async move { decide(tx, &document, asks, limits).await })).await
    }

    /// The documents on which there are claims of a person or group.
    pub async fn documents_of(&self, subject: Subject) -> Result<Vec<DocumentKey>, StoreError> {
        let rows = query("SELECT DISTINCT document FROM claims INDEXED BY claims_by_subject WHERE subject_id = ?")
            .bind(id(subject).as_bytes().as_slice())
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Columns::of(row, "claims").parse()).collect()
    }

    /// Lets held removals go, exactly these, with the audit rows of that.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is released then.
    pub async fn release_removals(
        &self,
        removals: Vec<(DocumentKey, Vec<Removal>)>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        self.commit_leading(move |tx| {
            Box::pin(async move {
                for (document, removals) in &removals {
                    let keys: Vec<Key> = removals.iter().map(Key::of).collect();
                    query(RELEASE)
                        .bind(tx.now_nanos())
                        .bind(json(&keys)?)
                        .bind(document.to_string())
                        .execute(&mut tx.connection)
                        .await?;
                }
                for entry in audit {
                    tx.audit(AuditDraft::of(entry));
                }
                Ok(())
            })
        })
        .await
    }
}

async fn decide(
    tx: &mut Transaction,
    document: &str,
    asks: Vec<Removal>,
    limits: RemovalLimits,
) -> Result<BTreeSet<Removal>, StoreError> {
    let hour = Hour { now: tx.now_nanos(), before: tx.now.checked_sub(GUARD_WINDOW).map_or(i64::MIN, nanos) };
    let marked = marked(&mut tx.connection, document).await?;
    let mut wanted: BTreeMap<Key, Mark> = BTreeMap::new();
    let mut held = BTreeSet::new();
    for (scope, asks) in by_scope(&mut tx.connection, asks).await? {
        let word = scope.to_string();
        let mut open = Vec::new();
        for ask in asks {
            let key = Key::of(&ask);
            match marked.get(&key) {
                Some(mark) if mark.released && mark.scope == word => {
                    wanted.insert(key, mark.clone());
                }
                _ => open.push((key, ask)),
            }
        }
        let people: BTreeSet<Uuid> = open.iter().map(|(_, ask)| id(ask.claim.subject)).collect();
        let kept = judge(&mut tx.connection, &scope, &people, limits.of(&scope), hour).await?;
        for (key, ask) in open {
            if let Some(at) = kept.get(&id(ask.claim.subject)) {
                wanted.insert(key, Mark { scope: word.clone(), at: *at, released: false });
                held.insert(ask);
            }
        }
    }
    mark(&mut tx.connection, document, &marked, &wanted).await?;
    Ok(held)
}

async fn marked(connection: &mut SqliteConnection, document: &str) -> Result<BTreeMap<Key, Mark>, StoreError> {
    let rows = query(MARKED).bind(document).fetch_all(connection).await?;
    let mut marked = BTreeMap::new();
    for row in &rows {
        let mut columns = Columns::of(row, "claims");
        let (role, condition, member) = (columns.text()?, columns.text()?, columns.text()?);
        let (mapping, subject) = (columns.text()?, parse(&columns.text()?)?);
        let key = Key(role, condition, member, mapping, subject.simple().to_string());
        let (scope, at) = (columns.text()?, columns.integer()?);
        marked.insert(key, Mark { scope, at, released: columns.integer()? != 0 });
    }
    Ok(marked)
}

/// Sorts the removals by whom they are counted with.
async fn by_scope(
    connection: &mut SqliteConnection,
    asks: Vec<Removal>,
) -> Result<BTreeMap<RemovalScope, Vec<Removal>>, StoreError> {
    let leavers: BTreeSet<Uuid> = asks.iter().filter(|ask| ask.leaver).map(|ask| id(ask.claim.subject)).collect();
    let mut providers: BTreeMap<Uuid, ProviderName> = BTreeMap::new();
    if !leavers.is_empty() {
        let ids: Vec<Uuid> = leavers.into_iter().collect();
        for row in &query(PROVIDERS).bind(id_list(&ids)).fetch_all(connection).await? {
            let mut columns = Columns::of(row, "counters");
            providers.insert(parse(&columns.text()?)?, columns.provider()?);
        }
    }
    let mut scopes: BTreeMap<RemovalScope, Vec<Removal>> = BTreeMap::new();
    for ask in asks {
        let scope = if ask.leaver {
            RemovalScope::Leavers(providers.get(&id(ask.claim.subject)).cloned())
        } else {
            RemovalScope::Mapping(ask.claim.mapping.clone())
        };
        scopes.entry(scope).or_default().push(ask);
    }
    Ok(scopes)
}

/// Decides about the people of one scope. Answers who is held, and since when.
async fn judge(
    connection: &mut SqliteConnection,
    scope: &RemovalScope,
    people: &BTreeSet<Uuid>,
    limit: RemovalLimit,
    hour: Hour,
) -> Result<BTreeMap<Uuid, i64>, StoreError> {
    let mut kept = BTreeMap::new();
    if people.is_empty() {
        return Ok(kept);
    }
    let word = scope.to_string();
    let ids: Vec<Uuid> = people.iter().copied().collect();
    let list = id_list(&ids);
    for row in &query(LATCHED).bind(&word).bind(&list).fetch_all(&mut *connection).await? {
        let mut columns = Columns::of(row, "claims");
        kept.insert(parse(&columns.text()?)?, columns.integer()?);
    }
    let mut passed = BTreeSet::new();
    for row in &query(PASSED).bind(&word).bind(hour.before).bind(&list).fetch_all(&mut *connection).await? {
        passed.insert(parse(&Columns::of(row, "guard_removals").text()?)?);
    }
    let new: Vec<Uuid> =
        ids.into_iter().filter(|person| !kept.contains_key(person) && !passed.contains(person)).collect();
    if new.is_empty() {
        return Ok(kept);
    }
    if hold(connection, scope, &new, limit, hour).await? {
        kept.extend(new.into_iter().map(|person| (person, hour.now)));
    } else {
        query("DELETE FROM guard_removals WHERE scope = ? AND at <= ?")
            .bind(&word)
            .bind(hour.before)
            .execute(&mut *connection)
            .await?;
        query(
            "INSERT INTO guard_removals (scope, subject, at) SELECT ?, unhex(value), ? FROM json_each(?) WHERE true \
             ON CONFLICT DO UPDATE SET at = excluded.at",
        )
        .bind(&word)
        .bind(hour.now)
        .bind(id_list(&new))
        .execute(&mut *connection)
        .await?;
    }
    Ok(kept)
}

/// Are people who are asked about for the first time held?
async fn hold(
    connection: &mut SqliteConnection,
    scope: &RemovalScope,
    new: &[Uuid],
    limit: RemovalLimit,
    hour: Hour,
) -> Result<bool, StoreError> {
    let word = scope.to_string();
    let most = limited(limit.relevant());
    let mut counted = Vec::new();
    for count in [PASSED_COUNT, HELD_COUNT] {
        let row = query(count).bind(&word).bind(hour.before).bind(most).fetch_one(&mut *connection).await?;
        let mut columns = Columns::of(&row, "claims");
        counted.push((columns.count()?, columns.integer_or_none()?));
    }
    let [(passed, passed_since), (held, held_since)] = counted[..] else { return Ok(true) };
    let others = match limit.judge(ScopeCounts { passed, held, new: new.len() as u64 }) {
        Judgement::Pass => return Ok(false),
        Judgement::Hold => return Ok(true),
        Judgement::HoldUnlessMore(others) => others,
    };
    let since = passed_since.into_iter().chain(held_since).min().unwrap_or(hour.now);
    let (next, whose, name) = match scope {
        RemovalScope::Mapping(mapping) => (OF_MAPPING, "true", mapping.to_string()),
        RemovalScope::Leavers(provider) => {
            (OF_ANY, OF_PROVIDER, provider.as_ref().map(ToString::to_string).unwrap_or_default())
        }
    };
    // A claim of the scope: of a provider, any claim of the person is one.
    let of = if matches!(scope, RemovalScope::Mapping(_)) { "AND c.mapping = ?5" } else { "" };
    let sql = format!(
        "WITH RECURSIVE person (id) AS ({next} UNION ALL SELECT ({next} AND subject_id > person.id) FROM person \
            WHERE person.id IS NOT NULL) \
         SELECT count(*) FROM (SELECT 1 FROM person WHERE id IS NOT NULL AND {whose} AND {GRANTED} {of}) \
            AND id NOT IN (SELECT unhex(value) FROM json_each(?3)) \
            AND NOT EXISTS (SELECT 1 FROM guard_removals r WHERE r.scope = ?1 AND r.subject = person.id AND r.at > ?2) \
            AND NOT EXISTS (SELECT 1 FROM claims h INDEXED BY claims_held WHERE h.held_scope = ?1 \
                AND h.released_at IS NULL AND h.subject_id = person.id AND h.held_at > ?2) \
         LIMIT ?6)"
    );
    let row = query(sqlx::AssertSqlSafe(sql))
        .bind(&word)
        .bind(hour.before)
        .bind(id_list(new))
        .bind(since)
        .bind(name)
        .bind(limited(others.saturating_add(1)))
        .fetch_one(&mut *connection)
        .await?;
    Ok(Columns::of(&row, "claims").count()? <= others)
}

/// Brings the marks of a document from what they were to what they are to be.
async fn mark(
    connection: &mut SqliteConnection,
    document: &str,
    before: &BTreeMap<Key, Mark>,
    wanted: &BTreeMap<Key, Mark>,
) -> Result<(), StoreError> {
    #[derive(Serialize)]
    struct Row<'a>(&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, i64);
    let cleared: Vec<&Key> = before.keys().filter(|key| !wanted.contains_key(*key)).collect();
    if !cleared.is_empty() {
        query(CLEAR).bind(json(&cleared)?).bind(document).execute(&mut *connection).await?;
    }
    let set: Vec<Row> = wanted
        .iter()
        .filter(|(key, mark)| before.get(key) != Some(mark))
        .map(|(key, mark)| Row(&key.0, &key.1, &key.2, &key.3, &key.4, &mark.scope, mark.at))
        .collect();
    if !set.is_empty() {
        query(HOLD).bind(json(&set)?).bind(document).execute(&mut *connection).await?;
    }
    Ok(())
}
