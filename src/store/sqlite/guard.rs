//! The guard's count of people over documents, reconciles and restarts, and the removals that it holds.
//!
//! A person whose removal passed is in `guard_removals` for an hour. A held removal is marked on its claim in the
//! ledger, and disappears with it. One transaction decides for one reconcile, so that concurrent reconciles of many
//! documents cannot each use up the limit. Its cost is the look-ups for the people in question; counting stops at the
//! limit.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Transaction;
use super::query::Query as _;
use crate::model::{
    DocumentKey, GUARD_WINDOW, GroupId, GuardDecision, ProviderName, Removal, RemovalLimit, RemovalLimits,
    RemovalScope, ScopeCounts, Subject, UserId,
};
use crate::store::StoreError;
use crate::store::encoding::{json, nanos};

/// The provider of an id, also of a deleted person.
const PROVIDER: &str = "SELECT provider FROM counters \
    WHERE EXISTS (SELECT 1 FROM users u WHERE u.provider = counters.provider AND u.id = ?1) \
       OR EXISTS (SELECT 1 FROM tombstones t WHERE t.provider = counters.provider AND t.id = ?1) \
    ORDER BY provider DESC LIMIT 1";

/// Held and released removals on a document.
const MARKED: &str = "SELECT role, condition_hash, member_key, mapping, subject_id, held_scope, held_at, \
    released_at IS NOT NULL FROM claims WHERE document = ? AND held_scope IS NOT NULL";

/// Since when the removal of a person is held anywhere.
const LATCHED: &str = "SELECT min(held_at) FROM claims INDEXED BY claims_held \
    WHERE held_scope = ? AND released_at IS NULL AND subject_id = ?";

/// True when the removal of a person passed within the hour.
const PASSED: &str = "SELECT EXISTS (SELECT 1 FROM guard_removals WHERE scope = ? AND at > ? AND subject = ?)";

/// Number of people whose removal passed within the hour, up to a limit, and the time of the first.
const PASSED_COUNT: &str = "SELECT count(*), min(at) FROM \
    (SELECT at FROM guard_removals WHERE scope = ? AND at > ? ORDER BY at LIMIT ?)";

/// Number of other people held within the hour, up to a limit, and the time of the first. Iterates from person to
/// person.
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
/// True when the person has a grant that was acknowledged before then.
const GRANTED: &str = "EXISTS (SELECT 1 FROM claims c INDEXED BY claims_by_subject JOIN grants g \
        ON g.document = c.document AND g.role = c.role AND g.condition_hash = c.condition_hash \
        AND g.member_key = c.member_key \
    WHERE c.subject_id = person.id AND g.state = 'owned' AND (g.acknowledged_at IS NULL OR g.acknowledged_at < ?4)";
const OF_PROVIDER: &str = "(EXISTS (SELECT 1 FROM users u WHERE u.provider = ?5 AND u.id = person.id) \
    OR EXISTS (SELECT 1 FROM tombstones t WHERE t.provider = ?5 AND t.id = person.id))";

/// The claim of a key, with the document as the first parameter.
macro_rules! of_key {
    () => {
        " WHERE document = ?1 AND role = ?2 AND condition_hash = ?3 AND member_key = ?4 AND mapping = ?5 AND subject_id = ?6"
    };
}

const HOLD: &str = concat!("UPDATE claims SET held_scope = ?7, held_at = ?8, released_at = NULL", of_key!());
const CLEAR: &str = concat!("UPDATE claims SET held_scope = NULL, held_at = NULL, released_at = NULL", of_key!());
const RELEASE: &str = concat!("UPDATE claims SET released_at = ?7", of_key!(), " AND held_scope IS NOT NULL");

/// The key of a claim of one document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    role: String,
    condition: String,
    member: String,
    mapping: String,
    subject: Uuid,
}

impl Key {
    fn of(removal: &Removal) -> Self {
        let Removal { grant, claim, .. } = removal;
        Self {
            role: grant.role.as_str().to_owned(),
            condition: grant.condition.as_str().to_owned(),
            member: grant.member.as_str().to_owned(),
            mapping: claim.mapping.to_string(),
            subject: id(claim.subject),
        }
    }
}

/// A mark on a claim.
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

fn limited(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The period in which people are counted.
#[derive(Clone, Copy)]
struct Hour {
    now: i64,
    /// Removals up to this time do not count.
    before: i64,
}

/// The documents on which there are claims of a person or group.
pub(crate) fn documents_of(db: &Connection, subject: Subject) -> Result<Vec<DocumentKey>, StoreError> {
    let sql = "SELECT DISTINCT document FROM claims INDEXED BY claims_by_subject WHERE subject_id = ?";
    db.all("claims", sql, [id(subject)], |columns| columns.parse())
}

/// Releases held removals of a document.
pub(crate) fn release(
    tx: &mut Transaction<'_>,
    document: &DocumentKey,
    removals: &[Removal],
) -> Result<(), StoreError> {
    let (document, now) = (document.to_string(), tx.now_nanos());
    for removal in removals {
        let Key { role, condition, member, mapping, subject } = Key::of(removal);
        tx.db.run(RELEASE, params![document, role, condition, member, mapping, subject, now])?;
    }
    Ok(())
}

/// Decides which removals on a document are held.
pub(crate) fn decide(
    tx: &mut Transaction<'_>,
    document: &str,
    asks: Vec<Removal>,
    limits: RemovalLimits,
) -> Result<BTreeSet<Removal>, StoreError> {
    let hour = Hour { now: tx.now_nanos(), before: tx.now.checked_sub(GUARD_WINDOW).map_or(i64::MIN, nanos) };
    let marked = marked(tx.db, document)?;
    let mut wanted: BTreeMap<Key, Mark> = BTreeMap::new();
    let mut held = BTreeSet::new();
    for (scope, asks) in by_scope(tx.db, asks)? {
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
        let people: BTreeSet<Uuid> = open.iter().map(|(key, _)| key.subject).collect();
        let kept = held_in_scope(tx.db, &scope, &people, limits.of(&scope), hour)?;
        for (key, ask) in open {
            if let Some(at) = kept.get(&key.subject) {
                wanted.insert(key, Mark { scope: word.clone(), at: *at, released: false });
                held.insert(ask);
            }
        }
    }
    mark(tx.db, document, &marked, &wanted)?;
    Ok(held)
}

fn marked(db: &Connection, document: &str) -> Result<BTreeMap<Key, Mark>, StoreError> {
    let marked = db.all("claims", MARKED, [document], |columns| {
        let key = Key {
            role: columns.text()?,
            condition: columns.text()?,
            member: columns.text()?,
            mapping: columns.text()?,
            subject: columns.id()?,
        };
        Ok((key, Mark { scope: columns.text()?, at: columns.integer()?, released: columns.flag()? }))
    })?;
    Ok(marked.into_iter().collect())
}

/// Groups the removals by the scope that they are counted in.
fn by_scope(db: &Connection, asks: Vec<Removal>) -> Result<BTreeMap<RemovalScope, Vec<Removal>>, StoreError> {
    let mut providers: BTreeMap<Uuid, Option<ProviderName>> = BTreeMap::new();
    let mut scopes: BTreeMap<RemovalScope, Vec<Removal>> = BTreeMap::new();
    for ask in asks {
        let scope = if ask.leaver {
            let subject = id(ask.claim.subject);
            let provider = if let Some(known) = providers.get(&subject) {
                known.clone()
            } else {
                let found = db.first("counters", PROVIDER, [subject], |columns| columns.provider())?;
                providers.insert(subject, found.clone());
                found
            };
            RemovalScope::Leavers(provider)
        } else {
            RemovalScope::Mapping(ask.claim.mapping.clone())
        };
        scopes.entry(scope).or_default().push(ask);
    }
    Ok(scopes)
}

/// Decides about the people of one scope. Returns who is held, and since when.
fn held_in_scope(
    db: &Connection,
    scope: &RemovalScope,
    people: &BTreeSet<Uuid>,
    limit: RemovalLimit,
    hour: Hour,
) -> Result<BTreeMap<Uuid, i64>, StoreError> {
    let word = scope.to_string();
    let mut kept = BTreeMap::new();
    let mut new = Vec::new();
    for person in people {
        if let Some(at) = db.one("claims", LATCHED, params![word, person], |columns| columns.integer_or_none())? {
            kept.insert(*person, at);
        } else if !db.one("guard_removals", PASSED, params![word, hour.before, person], |columns| columns.flag())? {
            new.push(*person);
        }
    }
    if new.is_empty() {
        return Ok(kept);
    }
    if hold(db, scope, &new, limit, hour)? {
        kept.extend(new.into_iter().map(|person| (person, hour.now)));
        return Ok(kept);
    }
    db.run("DELETE FROM guard_removals WHERE scope = ? AND at <= ?", params![word, hour.before])?;
    for person in new {
        db.run(
            "INSERT INTO guard_removals (scope, subject, at) VALUES (?, ?, ?) \
             ON CONFLICT DO UPDATE SET at = excluded.at",
            params![word, person, hour.now],
        )?;
    }
    Ok(kept)
}

/// Decides whether people whose removal is proposed for the first time are held.
fn hold(
    db: &Connection,
    scope: &RemovalScope,
    new: &[Uuid],
    limit: RemovalLimit,
    hour: Hour,
) -> Result<bool, StoreError> {
    let word = scope.to_string();
    let most = limited(limit.relevant());
    let count = |sql| {
        let values = params![word, hour.before, most];
        db.one("claims", sql, values, |columns| Ok((columns.count()?, columns.integer_or_none()?)))
    };
    let ((passed, passed_since), (held, held_since)) = (count(PASSED_COUNT)?, count(HELD_COUNT)?);
    let others = match limit.decide(ScopeCounts { passed, held, new: new.len() as u64 }) {
        GuardDecision::Pass => return Ok(false),
        GuardDecision::Hold => return Ok(true),
        GuardDecision::HoldUnlessMore(others) => others,
    };
    let since = passed_since.into_iter().chain(held_since).min().unwrap_or(hour.now);
    let (next, whose, name) = match scope {
        RemovalScope::Mapping(mapping) => (OF_MAPPING, "true", mapping.to_string()),
        RemovalScope::Leavers(provider) => {
            (OF_ANY, OF_PROVIDER, provider.as_ref().map(ToString::to_string).unwrap_or_default())
        }
    };
    // A claim within the scope; for a provider, any claim of the person counts.
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
    // One statement iterates over the people and stops at the limit; the list is JSON since its length is not fixed.
    let new: Vec<_> = new.iter().map(|id| id.simple().to_string()).collect();
    let most = limited(others.saturating_add(1));
    let values = params![word, hour.before, json(&new)?, since, name, most];
    Ok(db.one("claims", &sql, values, |columns| columns.count())? <= others)
}

/// Updates the marks of a document.
fn mark(
    db: &Connection,
    document: &str,
    before: &BTreeMap<Key, Mark>,
    wanted: &BTreeMap<Key, Mark>,
) -> Result<(), StoreError> {
    for key in before.keys().filter(|key| !wanted.contains_key(*key)) {
        let Key { role, condition, member, mapping, subject } = key;
        db.run(CLEAR, params![document, role, condition, member, mapping, subject])?;
    }
    for (key, mark) in wanted.iter().filter(|(key, mark)| before.get(key) != Some(mark)) {
        let Key { role, condition, member, mapping, subject } = key;
        db.run(HOLD, params![document, role, condition, member, mapping, subject, mark.scope, mark.at])?;
    }
    Ok(())
}
