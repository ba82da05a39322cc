//! The ledger: what rolecall granted, why, and what is under way.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::{Row as _, query};
use uuid::Uuid;

use super::audit::AuditDraft;
use super::committer::Transaction;
use super::lanes::cost;
use super::sql::{Columns, json, nanos};
use super::{Store, StoreError};
use crate::model::{
    AcknowledgedWrite, AuditEntry, Claim, ConditionHash, DocumentKey, GrantKey, GrantState, Ground, GroupId, Intent,
    IntentAction, LedgerChange, LedgerRow, MappingKey, MemberKey, ProviderName, Revision, Role, Subject, UserId,
};

/// Forgets, puts, and makes the claims of what was put exactly those given. Parameters: document and list, four times;
/// the lists are keys to forget, grants, claims, keys and claims.
pub(super) const RECORD: &str = "\
    DELETE FROM grants WHERE document = ? AND (role, condition_hash, member_key) IN \
        (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)); \
    INSERT INTO grants (document, role, condition_hash, member_key, member, condition, state, intent_action, \
            intent_etag_before, intent_present_before, intent_at, intent_plan_hash, acknowledged_at, verified_at, \
            revoking_since, held, resource_uid, stored_as) \
        SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
            value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, \
            value ->> 14, value ->> 15, value ->> 16 \
        FROM json_each(?) WHERE true \
        ON CONFLICT DO UPDATE SET member = excluded.member, condition = excluded.condition, state = excluded.state, \
            intent_action = excluded.intent_action, intent_etag_before = excluded.intent_etag_before, \
            intent_present_before = excluded.intent_present_before, intent_at = excluded.intent_at, \
            intent_plan_hash = excluded.intent_plan_hash, acknowledged_at = excluded.acknowledged_at, \
            verified_at = excluded.verified_at, revoking_since = excluded.revoking_since, \
            held = excluded.held, resource_uid = excluded.resource_uid, stored_as = excluded.stored_as; \
    DELETE FROM claims WHERE document = ? \
        AND (role, condition_hash, member_key) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)) \
        AND (role, condition_hash, member_key, mapping, subject_kind, subject_id) NOT IN \
            (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5) \
             FROM json_each(?)); \
    INSERT INTO claims (document, role, condition_hash, member_key, mapping, subject_kind, subject_id, provider, groups, \
            mapping_uid, generation) \
        SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5), value ->> 6, \
            value ->> 7, value ->> 8, value ->> 9 \
        FROM json_each(?) WHERE true \
        ON CONFLICT DO UPDATE SET provider = excluded.provider, groups = excluded.groups, \
            mapping_uid = excluded.mapping_uid, generation = excluded.generation \
            WHERE provider IS NOT excluded.provider OR groups IS NOT excluded.groups \
                OR mapping_uid IS NOT excluded.mapping_uid OR generation IS NOT excluded.generation";

/// Grants and claims of a document in the order of their keys, each as one JSON text: a row of its own for each of them
/// would be a hop between threads.
const READ: &str = "SELECT \
    (SELECT json_group_array(json_array(role, condition_hash, member_key, member, condition, state, intent_action, \
            intent_etag_before, intent_present_before, intent_at, intent_plan_hash, acknowledged_at, verified_at, \
            revoking_since, held, resource_uid, stored_as)) \
        FROM (SELECT * FROM grants WHERE document = ?1 ORDER BY role, condition_hash, member_key)), \
    (SELECT json_group_array(json_array(role, condition_hash, member_key, mapping, subject_kind, hex(subject_id), \
            provider, groups, mapping_uid, generation)) \
        FROM (SELECT * FROM claims WHERE document = ?1 ORDER BY role, condition_hash, member_key)), \
    (SELECT etag FROM revisions WHERE document = ?1), \
    (SELECT beside FROM revisions WHERE document = ?1), \
    (SELECT resource_uid FROM revisions WHERE document = ?1)";

/// How long the etag of an older version is remembered. Google documents no bound for the age of a read; seconds are
/// what is seen.
const SUPERSEDED: SignedDuration = SignedDuration::from_hours(1);

/// What the store holds about one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentLedger {
    /// Its grants, in the order of their keys.
    pub rows: Vec<LedgerRow>,
    /// The last acknowledged write; none before the first, and for what a version that did not record it wrote.
    pub revision: Option<Revision>,
}

/// The key columns of a grant.
#[derive(Serialize)]
struct Key<'a>(&'a str, &'a str, &'a str);

impl<'a> Key<'a> {
    fn of(grant: &'a GrantKey) -> Self {
        Self(grant.role.as_str(), grant.condition.as_str(), grant.member.as_str())
    }
}

/// The columns of a grant.
#[derive(Serialize)]
struct Grant<'a>(
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    Option<String>,
    &'static str,
    Option<&'static str>,
    Option<&'a str>,
    Option<i64>,
    Option<i64>,
    Option<&'a str>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    Option<&'a str>,
    Option<String>,
);

impl<'a> Grant<'a> {
    fn of(row: &'a LedgerRow) -> Result<Self, StoreError> {
        let Key(role, condition_hash, member_key) = Key::of(&row.grant);
        let intent = row.intent.as_ref();
        Ok(Self(
            role,
            condition_hash,
            member_key,
            &row.member,
            row.condition.as_ref().map(json).transpose()?,
            row.state.as_str(),
            intent.map(|intent| action_word(intent.action)),
            intent.map(|intent| intent.revision_before.as_str()),
            intent.map(|intent| i64::from(intent.present_before)),
            intent.map(|intent| nanos(intent.at)),
            intent.map(|intent| intent.plan_hash.as_str()),
            row.acknowledged_at.map(nanos),
            row.verified_at.map(nanos),
            row.revoking_since.map(nanos),
            i64::from(row.held),
            row.resource_uid.as_deref(),
            (!row.stored_as.is_empty()).then(|| json(&row.stored_as)).transpose()?,
        ))
    }
}

/// The columns of a claim: those of its grant, mapping, kind and id of the subject, where it came from, uid and generation
/// of the mapping.
#[derive(Serialize)]
struct ClaimColumns<'a>(
    &'a str,
    &'a str,
    &'a str,
    String,
    &'static str,
    String,
    Option<&'a str>,
    Option<String>,
    Option<&'a str>,
    Option<i64>,
);

impl<'a> ClaimColumns<'a> {
    fn of(row: &'a LedgerRow, claim: &Claim) -> Result<Self, StoreError> {
        let Key(role, condition_hash, member_key) = Key::of(&row.grant);
        let ground = row.grounds.get(claim);
        let groups = ground.map(|ground| json(&ground.groups)).transpose()?;
        let provider = ground.map(|ground| ground.provider.as_str());
        let (kind, id) = match claim.subject {
            Subject::User(UserId(id)) => ("user", id),
            Subject::Group(GroupId(id)) => ("group", id),
        };
        let mapping = claim.mapping.to_string();
        let uid = ground.and_then(|ground| ground.mapping_uid.as_deref());
        let generation = ground.and_then(|ground| ground.generation);
        let id = id.simple().to_string();
        Ok(Self(role, condition_hash, member_key, mapping, kind, id, provider, groups, uid, generation))
    }
}

fn action_word(action: IntentAction) -> &'static str {
    match action {
        IntentAction::Grant => "grant",
        IntentAction::Revoke => "revoke",
    }
}

fn action_from_word(word: &str) -> Option<IntentAction> {
    [IntentAction::Grant, IntentAction::Revoke].into_iter().find(|action| action_word(*action) == word)
}

/// The columns of a grant as [`READ`] gives them.
#[derive(Deserialize)]
struct ReadGrant<'a>(
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    String,
    Option<String>,
    #[serde(borrow)] Cow<'a, str>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    Option<String>,
    Option<String>,
);

/// The columns of a claim as [`READ`] gives them: key of its grant, mapping, kind and id of the subject, where it came from,
/// uid and generation of the mapping.
#[derive(Deserialize)]
struct ReadClaim<'a>(
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    Option<String>,
    Option<String>,
    #[serde(borrow)] Option<Cow<'a, str>>,
    Option<i64>,
);

fn damaged(what: &'static str, problem: &impl ToString) -> StoreError {
    StoreError::Damaged { what, problem: problem.to_string() }
}

fn time(number: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_nanosecond(i128::from(number)).map_err(|error| damaged("grants", &error))
}

impl ReadGrant<'_> {
    /// `before`: the row before, which mostly is of the same role.
    fn row(self, before: Option<&LedgerRow>) -> Result<LedgerRow, StoreError> {
        let Self(role, condition_hash, member_key, member, condition, state, action, etag, present, at, plan, ..) =
            self;
        let intent = match (action, etag, present, at, plan) {
            (None, None, None, None, None) => None,
            (Some(action), Some(revision_before), Some(present), Some(at), Some(plan_hash)) => Some(Intent {
                action: action_from_word(&action)
                    .ok_or_else(|| damaged("grants", &format!("`{action}` is not an action")))?,
                revision_before,
                present_before: present != 0,
                at: time(at)?,
                plan_hash,
            }),
            // Half an intent must not read as none: that would forget a call whose outcome is unknown.
            _ => return Err(damaged("grants", &"an intent is incomplete")),
        };
        Ok(LedgerRow {
            grant: GrantKey {
                role: match before.map(|row| &row.grant.role).filter(|before| before.as_str() == role) {
                    Some(before) => before.clone(),
                    None => Role::new(&role).map_err(|error| damaged("grants", &error))?,
                },
                condition: ConditionHash::from_text(&condition_hash),
                member: MemberKey::of(&member_key),
            },
            member,
            condition: condition
                .map(|text| serde_json::from_str(&text))
                .transpose()
                .map_err(|error| damaged("grants", &error))?,
            state: GrantState::from_word(&state)
                .ok_or_else(|| damaged("grants", &format!("`{state}` is not a state")))?,
            intent,
            claims: BTreeSet::new(),
            grounds: BTreeMap::new(),
            acknowledged_at: self.11.map(time).transpose()?,
            verified_at: self.12.map(time).transpose()?,
            revoking_since: self.13.map(time).transpose()?,
            held: self.14 != 0,
            resource_uid: self.15,
            stored_as: match self.16 {
                None => BTreeSet::new(),
                Some(text) => serde_json::from_str(&text).map_err(|error| damaged("grants", &error))?,
            },
        })
    }
}

impl ReadClaim<'_> {
    fn claim(self, mappings: &mut BTreeMap<String, MappingKey>) -> Result<(Claim, Option<Ground>), StoreError> {
        let Self(_, _, _, mapping, kind, id, provider, groups, uid, generation) = self;
        let mapping = if let Some(known) = mappings.get(&*mapping) {
            known.clone()
        } else {
            let text = mapping.into_owned();
            let key = MappingKey::try_from(text.clone()).map_err(|error| damaged("claims", &error))?;
            mappings.insert(text, key.clone());
            key
        };
        let id = Uuid::try_parse(&id).map_err(|error| damaged("claims", &error))?;
        let subject = if kind == "group" { Subject::Group(GroupId(id)) } else { Subject::User(UserId(id)) };
        let ground = match (provider, groups) {
            (Some(provider), Some(groups)) => Some(Ground {
                provider: ProviderName::try_from(provider).map_err(|error| damaged("claims", &error))?,
                groups: serde_json::from_str(&groups).map_err(|error| damaged("claims", &error))?,
                mapping_uid: uid.as_deref().map(Arc::from),
                generation,
            }),
            _ => None,
        };
        Ok((Claim { mapping, subject }, ground))
    }
}

/// Puts together what [`READ`] gives.
fn ledger(grants: &str, claims: &str) -> Result<Vec<LedgerRow>, StoreError> {
    let grants: Vec<ReadGrant> = serde_json::from_str(grants).map_err(|error| damaged("grants", &error))?;
    let claims: Vec<ReadClaim> = serde_json::from_str(claims).map_err(|error| damaged("claims", &error))?;
    let mut claims = claims.into_iter().peekable();
    let mut ledger: Vec<LedgerRow> = Vec::with_capacity(grants.len());
    let mut mappings = BTreeMap::new();
    for grant in grants {
        let (mut own, mut grounds) = (BTreeSet::new(), BTreeMap::new());
        while let Some(claim) = claims.next_if(|claim| claim.0 == grant.0 && claim.1 == grant.1 && claim.2 == grant.2) {
            let (claim, ground) = claim.claim(&mut mappings)?;
            grounds.extend(ground.map(|ground| (claim.clone(), ground)));
            own.insert(claim);
        }
        let row = grant.row(ledger.last())?;
        ledger.push(LedgerRow { claims: own, grounds, ..row });
    }
    match claims.next() {
        None => Ok(ledger),
        Some(_) => Err(damaged("claims", &"a claim has no grant")),
    }
}

async fn record(tx: &mut Transaction, document: &DocumentKey, changes: &[LedgerChange]) -> Result<(), StoreError> {
    // Of several changes of one grant the last counts.
    let mut last = BTreeMap::new();
    for change in changes {
        match change {
            LedgerChange::Put(row) => last.insert(&row.grant, Some(row)),
            LedgerChange::Remove(grant) => last.insert(grant, None),
        };
    }
    let forgotten: Vec<_> = last.iter().filter(|(_, row)| row.is_none()).map(|(grant, _)| Key::of(grant)).collect();
    let rows: Vec<&LedgerRow> = last.values().copied().flatten().collect();
    let keys: Vec<_> = rows.iter().map(|row| Key::of(&row.grant)).collect();
    let grants = rows.iter().map(|row| Grant::of(row)).collect::<Result<Vec<_>, _>>()?;
    let claims = rows
        .iter()
        .flat_map(|row| row.claims.iter().map(|claim| ClaimColumns::of(row, claim)))
        .collect::<Result<Vec<_>, _>>()?;
    let document = document.to_string();
    let claims = json(&claims)?;
    query(RECORD)
        .bind(&document)
        .bind(json(&forgotten)?)
        .bind(&document)
        .bind(json(&grants)?)
        .bind(&document)
        .bind(json(&keys)?)
        .bind(&claims)
        .bind(&document)
        .bind(&claims)
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

/// Keeps which version is the current one and which are older, and forgets what is older than an hour, of any document:
/// each write forgets about as many as it adds.
async fn remember(tx: &mut Transaction, document: &DocumentKey, write: &AcknowledgedWrite) -> Result<(), StoreError> {
    let document = document.to_string();
    query(
        "INSERT INTO revisions (document, etag, beside, resource_uid) VALUES (?, ?, ?, ?) \
         ON CONFLICT DO UPDATE SET etag = excluded.etag, beside = excluded.beside, \
             resource_uid = excluded.resource_uid; \
         INSERT INTO superseded_etags (document, etag, at) SELECT ?, value, ? FROM json_each(?) WHERE true \
         ON CONFLICT DO UPDATE SET at = excluded.at; \
         DELETE FROM superseded_etags WHERE document = ? AND etag = ?; \
         DELETE FROM superseded_etags WHERE at < ?",
    )
    .bind(&document)
    .bind(&write.revision.id)
    .bind(json(&write.revision.beside)?)
    .bind(write.revision.resource_uid.as_deref())
    .bind(&document)
    .bind(nanos(write.at))
    .bind(json(&write.superseded)?)
    .bind(&document)
    .bind(&write.revision.id)
    .bind(nanos(write.at.saturating_sub(SUPERSEDED).unwrap_or(Timestamp::MIN)))
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

impl Store {
    /// What is known about the grants of one document, in the order of their keys.
    pub async fn ledger(&self, d: &DocumentKey) -> Result<Vec<LedgerRow>, StoreError> {
        Ok(self.document_ledger(d).await?.rows)
    }

    /// What is known about one document: its grants, and which version of its policy is the current one.
    pub async fn document_ledger(&self, d: &DocumentKey) -> Result<DocumentLedger, StoreError> {
        let row = query(READ).bind(d.to_string()).fetch_one(self.readers()).await?;
        let text = |index: usize| row.try_get::<&str, _>(index).map_err(StoreError::from);
        let rows = ledger(text(0)?, text(1)?)?;
        let etag: Option<String> = row.try_get(2)?;
        let revision = match etag {
            None => None,
            Some(etag) => {
                let beside = serde_json::from_str(text(3)?).map_err(|error| damaged("revisions", &error))?;
                Some(Revision { id: etag, beside, resource_uid: row.try_get(4)? })
            }
        };
        Ok(DocumentLedger { rows, revision })
    }

    /// True for the etag of a version of the document that a write of ours superseded within the last hour.
    pub async fn is_superseded(&self, d: &DocumentKey, etag: &str, now: Timestamp) -> Result<bool, StoreError> {
        let since = nanos(now.saturating_sub(SUPERSEDED).unwrap_or(Timestamp::MIN));
        let row = query("SELECT EXISTS (SELECT 1 FROM superseded_etags WHERE document = ? AND etag = ? AND at > ?)")
            .bind(d.to_string())
            .bind(etag)
            .bind(since)
            .fetch_one(self.readers())
            .await?;
        Ok(row.try_get::<i64, _>(0)? != 0)
    }

    /// All documents that the ledger knows, each with the mappings that hold claims there.
    pub async fn ledger_documents(&self) -> Result<Vec<(DocumentKey, BTreeSet<MappingKey>)>, StoreError> {
        let rows = query(
            "SELECT g.document, c.mapping FROM (SELECT DISTINCT document FROM grants) g \
             LEFT JOIN (SELECT DISTINCT document, mapping FROM claims) c ON c.document = g.document \
             ORDER BY g.document",
        )
        .fetch_all(self.readers())
        .await?;
        let mut documents: Vec<(DocumentKey, BTreeSet<MappingKey>)> = Vec::new();
        for row in &rows {
            let mut columns = Columns::of(row, "claims");
            let document: DocumentKey = columns.parse()?;
            let mapping = columns.parse_or_none()?;
            match documents.last_mut() {
                Some((last, mappings)) if *last == document => mappings.extend(mapping),
                _ => documents.push((document, mapping.into_iter().collect())),
            }
        }
        Ok(documents)
    }

    /// The documents on which a mapping holds claims.
    pub async fn claimed_documents(&self, mapping: &MappingKey) -> Result<Vec<DocumentKey>, StoreError> {
        let rows = query("SELECT DISTINCT document FROM claims WHERE mapping = ? ORDER BY document")
            .bind(mapping.to_string())
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Columns::of(row, "claims").parse()).collect()
    }

    /// Changes the ledger of one document and appends audit rows, all or nothing. Of several changes of one grant the
    /// last counts.
    ///
    /// # Errors
    /// [`StoreError::StaleEpoch`], when another process took over; nothing is recorded then.
    pub async fn record(
        &self,
        d: &DocumentKey,
        changes: Vec<LedgerChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        self.record_write(d, changes, audit, None).await
    }

    /// As [`Store::record`], with the acknowledged write that the changes follow from.
    ///
    /// # Errors
    /// As [`Store::record`].
    pub async fn record_write(
        &self,
        d: &DocumentKey,
        changes: Vec<LedgerChange>,
        audit: Vec<AuditEntry>,
        write: Option<AcknowledgedWrite>,
    ) -> Result<(), StoreError> {
        if changes.is_empty() && audit.is_empty() && write.is_none() {
            return Ok(());
        }
        let d = d.clone();
        // A row of the ledger with its claims, and an audit row, are several rows each.
        let cost = cost((changes.len() + audit.len()) * 4, 0);
        self.commit_leading_at(cost, move |tx| {
            Box::pin(async move {
                if !changes.is_empty() {
                    record(tx, &d, &changes).await?;
                }
                if let Some(write) = &write {
                    remember(tx, &d, write).await?;
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
