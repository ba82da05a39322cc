//! Erasing a person: names and addresses go, ids stay, so that what happened can still be told and positions rebuilt.
//!
//! Names stand in the events of the person, in the names of the audit, and in refusals of the address. What stands in the
//! directory goes when the identity provider deletes the person, and what stands in the ledger when the last grant is revoked;
//! until then nothing is erased.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde_json::json;
use sqlx::query;
use uuid::Uuid;

use super::audit::{AuditDraft, COMMAND};
use super::committer::{Ticket, Transaction};
use super::lanes::cost;
use super::names::address_of;
use super::sql::{self, Columns, fold};
use super::{Store, StoreError};
use crate::model::{DirectoryChange, DocumentKey, MemberKey, ProviderName, Seq, UserFacts, UserId};

/// Whose ids these are, of users that are there and of deleted ones.
const PROVIDERS: &str = "SELECT c.provider, t.deleted_at FROM counters c \
    LEFT JOIN tombstones t ON t.provider = c.provider AND t.id = ?1 AND t.kind = 'user' \
    WHERE t.id IS NOT NULL OR EXISTS (SELECT 1 FROM users u WHERE u.provider = c.provider AND u.id = ?1)";

/// Users who are there, by a folded name.
const PRESENT: &str = "SELECT id FROM users WHERE user_name_fold = ?1 OR lower(external_id) = ?1 \
    UNION SELECT u.id FROM user_emails e CROSS JOIN users u ON u.position = e.user WHERE e.value_fold = ?1";

/// The events that say what a user is called. The text of the event begins with its kind.
const CALLED: &str = r#"SELECT seq, change FROM events WHERE change GLOB '{"kind":"user",*' ORDER BY seq"#;
const CALLED_OF: &str =
    r#"SELECT seq, change FROM events WHERE change GLOB '{"kind":"user",*' AND instr(change, ?) > 0 ORDER BY seq"#;

const NAMES: &str = "SELECT id, subject, name FROM people WHERE name IS NOT NULL";

/// Documents on which something of ours, or under way, is there for a person: by claims, or by an address that no claim of
/// somebody else explains. Parameters: id, members as JSON.
const GRANTED: &str = "SELECT DISTINCT document FROM claims INDEXED BY claims_by_subject WHERE subject_id = ?1 \
    UNION SELECT g.document FROM grants g WHERE g.member_key IN (SELECT value FROM json_each(?2)) \
        AND NOT EXISTS (SELECT 1 FROM claims c WHERE c.document = g.document AND c.role = g.role \
            AND c.condition_hash = g.condition_hash AND c.member_key = g.member_key)";

/// Parameters: events as JSON, ids of names as JSON, members as JSON, time.
const ERASE: &str = "\
    UPDATE events SET change = given.value ->> 1 FROM json_each(?) given WHERE events.seq = given.value ->> 0; \
    UPDATE people SET name = NULL WHERE id IN (SELECT value FROM json_each(?)); \
    DELETE FROM refusals WHERE member_key IN (SELECT value FROM json_each(?)); \
    INSERT INTO meta (key, value) VALUES ('rewrite_due', ?) \
        ON CONFLICT DO UPDATE SET value = excluded.value";

/// Somebody whom the store knows under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPerson {
    /// The SCIM id.
    pub id: UserId,
    /// The identity provider.
    pub provider: ProviderName,
    /// When the identity provider deleted the person; none while it has not.
    pub deleted_at: Option<Timestamp>,
}

/// What erasing a person came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// There is no user of this id, and there was none.
    Unknown,
    /// The identity provider has not deleted the person; nothing was erased.
    NotDeleted(ProviderName),
    /// There are grants of the person, or removals that are still to be done; nothing was erased.
    Granted(BTreeSet<DocumentKey>),
    /// The names are gone from all rows.
    Erased(Erased),
}

/// What was erased of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Events that named the person.
    pub events: u64,
    /// Names in the audit.
    pub names: u64,
    /// Refusals of an address.
    pub refusals: u64,
    /// Users of the identity provider whose own attributes hold an address of the person.
    pub mentioned_by: u64,
}

/// All that one user is called, folded.
fn names_of(facts: &UserFacts) -> impl Iterator<Item = String> {
    let emails = facts.emails.iter().map(|email| &email.value);
    [&facts.user_name].into_iter().chain(&facts.external_id).chain(emails).map(|name| fold(name))
}

/// The same user without names: nothing can be derived from it.
fn nameless(facts: &UserFacts) -> DirectoryChange {
    DirectoryChange::User(UserFacts {
        id: facts.id,
        active: facts.active,
        user_name: String::new(),
        external_id: None,
        emails: vec![],
    })
}

/// What is to be erased of a person.
#[derive(Default)]
struct Traces {
    events: Vec<(Seq, String)>,
    /// Ids of rows in `people`.
    names: Vec<i64>,
    /// As members of a policy are keyed.
    members: BTreeSet<String>,
    addresses: BTreeSet<String>,
    refusals: u64,
}

impl Store {
    /// Everybody who is or was known under a SCIM id, `userName`, `externalId` or address, in any letter case.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn find_people(&self, text: &str) -> Result<Vec<KnownPerson>, StoreError> {
        if let Ok(id) = Uuid::try_parse(text)
            && let Some(person) = self.known_person(UserId(id)).await?
        {
            return Ok(vec![person]);
        }
        let wanted = fold(text);
        if wanted.is_empty() {
            return Ok(vec![]);
        }
        let mut ids = BTreeSet::new();
        for row in query(PRESENT).bind(&wanted).fetch_all(self.readers()).await? {
            ids.insert(UserId(Columns::of(&row, "users").id()?));
        }
        let mut rows = query(CALLED).fetch(self.readers());
        while let Some(row) = rows.try_next().await? {
            let mut columns = Columns::of(&row, "events");
            let (_, change): (Seq, DirectoryChange) = (columns.integer()?, columns.json()?);
            if let DirectoryChange::User(facts) = change
                && names_of(&facts).any(|name| name == wanted)
            {
                ids.insert(facts.id);
            }
        }
        drop(rows);
        let mut rows = query(NAMES).fetch(self.readers());
        while let Some(row) = rows.try_next().await? {
            let mut columns = Columns::of(&row, "people");
            let (_, subject, name) = (columns.integer()?, columns.text()?, columns.text()?);
            if fold(address_of(&name)) == wanted
                && let Ok(id) = Uuid::try_parse(&subject)
            {
                ids.insert(UserId(id));
            }
        }
        drop(rows);
        let mut people = Vec::new();
        for id in ids {
            people.extend(self.known_person(id).await?);
        }
        Ok(people)
    }

    async fn known_person(&self, id: UserId) -> Result<Option<KnownPerson>, StoreError> {
        let row = query(PROVIDERS).bind(id.0.as_bytes().as_slice()).fetch_optional(self.readers()).await?;
        row.map(|row| {
            let mut columns = Columns::of(&row, "users");
            Ok(KnownPerson { id, provider: columns.provider()?, deleted_at: columns.time_or_none()? })
        })
        .transpose()
    }

    /// Removes all names and addresses of a person from all rows, and says so in the audit by the id. What was deleted is still
    /// in the free space of the file until [`Store::rewrite_file`]. `name`: one that the person had, which is all there is
    /// when what connects it to the id was pruned. `dry`: only looks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    pub async fn erase_person(&self, id: Option<UserId>, name: Option<&str>, dry: bool) -> Result<Erasure, StoreError> {
        let traces = self.traces(id, name).await?;
        let mentioned_by = self.mentions(&traces.addresses).await?;
        let bytes = traces.events.iter().map(|(_, change)| change.len()).sum();
        let ticket = Ticket::engine(cost(traces.events.len() + traces.names.len(), bytes));
        let erasure = self
            .committer()
            .commit_as(ticket, move |tx| Box::pin(async move { erase(tx, id, traces, dry).await }))
            .await?;
        Ok(match erasure {
            Erasure::Erased(erased) => Erasure::Erased(Erased { mentioned_by, ..erased }),
            other => other,
        })
    }

    /// Whether something was erased since the file was rewritten last.
    pub async fn is_rewrite_due(&self) -> Result<bool, StoreError> {
        let row = query("SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'rewrite_due')").fetch_one(self.readers());
        Ok(Columns::of(&row.await?, "meta").integer()? != 0)
    }

    /// Where the person is named.
    async fn traces(&self, id: Option<UserId>, name: Option<&str>) -> Result<Traces, StoreError> {
        let mut traces = Traces::default();
        let mut called: BTreeSet<String> = name.map(fold).into_iter().collect();
        let text = id.map(|id| id.to_string());
        let mut rows = query(CALLED_OF).bind(&text).fetch(self.readers());
        while let Some(row) = rows.try_next().await? {
            let mut columns = Columns::of(&row, "events");
            let (seq, change) = (columns.integer()?, columns.json()?);
            if let DirectoryChange::User(facts) = change
                && Some(facts.id) == id
                && nameless(&facts) != DirectoryChange::User(facts.clone())
            {
                called.extend(names_of(&facts));
                traces.events.push((seq, sql::json(&nameless(&facts))?));
            }
        }
        drop(rows);
        // What Google leaves of a deleted account has no subject. The same name under another id is somebody else's.
        let mut unlinked: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut rows = query(NAMES).fetch(self.readers());
        while let Some(row) = rows.try_next().await? {
            let mut columns = Columns::of(&row, "people");
            let (row, subject, name) = (columns.integer()?, columns.text()?, columns.text()?);
            let address = fold(address_of(&name));
            if Some(&subject) == text.as_ref() {
                called.insert(address);
                traces.names.push(row);
            } else if Uuid::try_parse(&subject).is_err() {
                unlinked.entry(address).or_default().push(row);
            }
        }
        drop(rows);
        called.remove("");
        traces.names.extend(called.iter().filter_map(|name| unlinked.remove(name)).flatten());
        let member = |name: &String| MemberKey::of(&format!("user:{name}")).as_str().to_owned();
        traces.members = called.iter().map(member).collect();
        let row = query("SELECT count(*) FROM refusals WHERE member_key IN (SELECT value FROM json_each(?))")
            .bind(sql::json(&traces.members)?)
            .fetch_one(self.readers())
            .await?;
        traces.refusals = Columns::of(&row, "refusals").count()?;
        traces.addresses = called.into_iter().filter(|name| name.contains('@')).collect();
        Ok(traces)
    }

    /// How many users have one of these addresses in their own attributes, such as that of their manager.
    async fn mentions(&self, addresses: &BTreeSet<String>) -> Result<u64, StoreError> {
        if addresses.is_empty() {
            return Ok(0);
        }
        let row = query(
            "SELECT count(*) FROM users WHERE EXISTS \
             (SELECT 1 FROM json_each(?) WHERE instr(lower(users.resource), value) > 0)",
        )
        .bind(sql::json(addresses)?)
        .fetch_one(self.readers())
        .await?;
        Columns::of(&row, "users").count()
    }
}

async fn erase(tx: &mut Transaction, id: Option<UserId>, traces: Traces, dry: bool) -> Result<Erasure, StoreError> {
    let bytes = id.map(|id| id.0.as_bytes().to_vec());
    if id.is_some() {
        let row = query(PROVIDERS).bind(&bytes).fetch_optional(&mut tx.connection).await?;
        let Some(row) = row else { return Ok(Erasure::Unknown) };
        let mut columns = Columns::of(&row, "users");
        let provider = columns.provider()?;
        if columns.time_or_none()?.is_none() {
            return Ok(Erasure::NotDeleted(provider));
        }
    }
    let members = sql::json(&traces.members)?;
    let rows = query(GRANTED).bind(&bytes).bind(&members).fetch_all(&mut tx.connection).await?;
    if !rows.is_empty() {
        let documents = rows.iter().map(|row| Columns::of(row, "grants").parse());
        return documents.collect::<Result<_, _>>().map(Erasure::Granted);
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
    query(ERASE)
        .bind(sql::json(&traces.events)?)
        .bind(sql::json(&traces.names)?)
        .bind(members)
        .bind(tx.now.to_string())
        .execute(&mut tx.connection)
        .await?;
    if !is_nothing {
        let detail = json!({"events": erased.events, "names": erased.names, "refusals": erased.refusals}).to_string();
        let subject = id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        let draft = AuditDraft::configuration(tx.now, COMMAND, "person.erase", &subject, None);
        tx.audit(draft.with_detail(detail));
    }
    Ok(Erasure::Erased(erased))
}
