//! Rows that contain a name of a person.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde_json::json;
use uuid::Uuid;

use super::Transaction;
use super::meta;
use super::query::Query as _;
use crate::model::{DirectoryChange, DocumentKey, MemberKey, Seq, UserId};
use crate::store::audit::{AuditDraft, COMMAND};
use crate::store::encoding::{self, fold, fold_name};
use crate::store::erase::{Traces, nameless, names_of};
use crate::store::names::address_of;
use crate::store::{Erased, Erasure, KnownPerson, StoreError};

/// The providers of these ids, of existing and of deleted users.
const PROVIDERS: &str = "SELECT c.provider, t.deleted_at FROM counters c \
    LEFT JOIN tombstones t ON t.provider = c.provider AND t.id = ?1 AND t.kind = 'user' \
    WHERE t.id IS NOT NULL OR EXISTS (SELECT 1 FROM users u WHERE u.provider = c.provider AND u.id = ?1)";

/// Existing users by a folded name.
const PRESENT: &str = "SELECT id FROM users WHERE user_name_fold IN (?1, ?2) OR lower(external_id) = ?1 \
    UNION SELECT u.id FROM user_emails e CROSS JOIN users u ON u.position = e.user WHERE e.value_fold = ?1";

/// The events with the names of a user. The text of the event starts with its kind.
const CALLED: &str = r#"SELECT seq, change FROM events WHERE change GLOB '{"kind":"user",*' ORDER BY seq"#;
const CALLED_OF: &str =
    r#"SELECT seq, change FROM events WHERE change GLOB '{"kind":"user",*' AND instr(change, ?) > 0 ORDER BY seq"#;

const NAMES: &str = "SELECT id, subject, name FROM people WHERE name IS NOT NULL";

/// Documents on which there are claims of a person.
const CLAIMED: &str = "SELECT DISTINCT document FROM claims INDEXED BY claims_by_subject WHERE subject_id = ?";

/// Documents on which a member has a grant of rolecall, or a call in progress, that no claim explains. All members in
/// one statement, since the grants have no index by member; as JSON, since their number is not fixed.
const GRANTED: &str = "SELECT DISTINCT g.document FROM grants g WHERE g.member_key IN (SELECT value FROM json_each(?)) \
    AND NOT EXISTS (SELECT 1 FROM claims c WHERE c.document = g.document AND c.role = g.role \
        AND c.condition_hash = g.condition_hash AND c.member_key = g.member_key)";

/// Number of users and other resources with one of these addresses in their own attributes, such as that of their
/// manager. All in one statement, since it scans them.
const MENTIONS: &str = "SELECT (SELECT count(*) FROM users WHERE EXISTS \
        (SELECT 1 FROM json_each(?1) WHERE instr(lower(users.resource), value) > 0)) \
    + (SELECT count(*) FROM resources WHERE EXISTS \
        (SELECT 1 FROM json_each(?1) WHERE instr(lower(resources.resource), value) > 0))";

/// Everybody who is or was known under a SCIM id, `userName`, `externalId` or address, in any letter case.
pub(crate) fn find_people(db: &Connection, text: &str) -> Result<Vec<KnownPerson>, StoreError> {
    if let Ok(id) = Uuid::try_parse(text)
        && let Some(person) = known_person(db, UserId(id))?
    {
        return Ok(vec![person]);
    }
    let wanted = fold(text);
    if wanted.is_empty() {
        return Ok(vec![]);
    }
    let mut ids: BTreeSet<UserId> = db
        .all("users", PRESENT, [&wanted, &fold_name(text)], |columns| columns.id().map(UserId))?
        .into_iter()
        .collect();
    db.each("events", CALLED, [], |mut columns| {
        let (_, change): (Seq, DirectoryChange) = (columns.integer()?, columns.json()?);
        if let DirectoryChange::User(facts) = change
            && names_of(&facts).any(|name| name == wanted)
        {
            ids.insert(facts.id);
        }
        Ok(())
    })?;
    db.each("people", NAMES, [], |mut columns| {
        let (_, subject, name) = (columns.integer()?, columns.text()?, columns.text()?);
        if fold(address_of(&name)) == wanted
            && let Ok(id) = Uuid::try_parse(&subject)
        {
            ids.insert(UserId(id));
        }
        Ok(())
    })?;
    let mut people = Vec::new();
    for id in ids {
        people.extend(known_person(db, id)?);
    }
    Ok(people)
}

fn known_person(db: &Connection, id: UserId) -> Result<Option<KnownPerson>, StoreError> {
    db.first("users", PROVIDERS, [id.0], |columns| {
        Ok(KnownPerson { id, provider: columns.provider()?, deleted_at: columns.time_or_none()? })
    })
}

/// The traces of a person, and the number of users that mention an address of the person.
pub(crate) fn traces(db: &Connection, id: Option<UserId>, name: Option<String>) -> Result<(Traces, u64), StoreError> {
    let mut traces = Traces::default();
    let mut called: BTreeSet<String> = name.into_iter().collect();
    let text = id.map(|id| id.to_string());
    db.each("events", CALLED_OF, [&text], |mut columns| {
        let (seq, change) = (columns.integer()?, columns.json()?);
        if let DirectoryChange::User(facts) = change
            && Some(facts.id) == id
            && nameless(&facts) != DirectoryChange::User(facts.clone())
        {
            called.extend(names_of(&facts));
            traces.events.push((seq, encoding::json(&nameless(&facts))?));
        }
        Ok(())
    })?;
    // The tombstone of a deleted account has no subject. The same name under another id belongs to somebody else.
    let mut unlinked: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    db.each("people", NAMES, [], |mut columns| {
        let (row, subject, name) = (columns.integer()?, columns.text()?, columns.text()?);
        let address = fold(address_of(&name));
        if Some(&subject) == text.as_ref() {
            called.insert(address);
            traces.names.push(row);
        } else if Uuid::try_parse(&subject).is_err() {
            unlinked.entry(address).or_default().push(row);
        }
        Ok(())
    })?;
    called.remove("");
    traces.names.extend(called.iter().filter_map(|name| unlinked.remove(name)).flatten());
    let member = |name: &String| MemberKey::of(&format!("user:{name}")).as_str().to_owned();
    traces.members = called.iter().map(member).collect();
    for member in &traces.members {
        let sql = "SELECT count(*) FROM refusals WHERE member_key = ?";
        traces.refusals += db.one("refusals", sql, [member], |columns| columns.count())?;
    }
    traces.addresses = called.into_iter().filter(|name| name.contains('@')).collect();
    let mentioned_by = if traces.addresses.is_empty() {
        0
    } else {
        db.one("users", MENTIONS, [encoding::json(&traces.addresses)?], |columns| columns.count())?
    };
    Ok((traces, mentioned_by))
}

/// True when something was erased since the last rewrite of the file.
pub(crate) fn is_rewrite_due(db: &Connection) -> Result<bool, StoreError> {
    Ok(meta::get(db, "rewrite_due")?.is_some())
}

/// Removes the names, unless the person exists or has a grant; `dry`: only reports.
pub(crate) fn erase(
    tx: &mut Transaction<'_>,
    id: Option<UserId>,
    traces: &Traces,
    dry: bool,
) -> Result<Erasure, StoreError> {
    let mut documents: BTreeSet<DocumentKey> = BTreeSet::new();
    if let Some(id) = id {
        match known_person(tx.db, id)? {
            None => return Ok(Erasure::Unknown),
            Some(person) if person.deleted_at.is_none() => return Ok(Erasure::NotDeleted(person.provider)),
            Some(_) => documents.extend(tx.db.all("claims", CLAIMED, [id.0], |columns| columns.parse())?),
        }
    }
    documents.extend(tx.db.all("grants", GRANTED, [encoding::json(&traces.members)?], |columns| columns.parse())?);
    if !documents.is_empty() {
        return Ok(Erasure::Granted(documents));
    }
    let erased = Erased {
        events: traces.events.len() as u64,
        names: traces.names.len() as u64,
        refusals: traces.refusals,
        mentioned_by: 0,
    };
    let is_nothing = erased == Erased::default();
    if id.is_none() && is_nothing {
        return Ok(Erasure::Unknown);
    }
    if dry {
        return Ok(Erasure::Erased(erased));
    }
    for (seq, change) in &traces.events {
        tx.db.run("UPDATE events SET change = ? WHERE seq = ?", params![change, seq])?;
    }
    for name in &traces.names {
        tx.db.run("UPDATE people SET name = NULL WHERE id = ?", [name])?;
    }
    for member in &traces.members {
        tx.db.run("DELETE FROM refusals WHERE member_key = ?", [member])?;
        let sql = "DELETE FROM drift WHERE member_key = ?1 OR instr(member_key, 'deleted:' || ?1 || '?uid=') = 1";
        tx.db.run(sql, [member])?;
    }
    let now = tx.now.to_string();
    meta::set(tx, "rewrite_due", Some(&now))?;
    if !is_nothing {
        let detail = json!({"events": erased.events, "names": erased.names, "refusals": erased.refusals}).to_string();
        let subject = id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        let draft = AuditDraft::configuration(tx.now, COMMAND, "person.erase", &subject, None);
        tx.audit(draft.with_detail(detail));
    }
    Ok(Erasure::Erased(erased))
}
