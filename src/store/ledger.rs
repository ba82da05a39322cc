//! The ledger: what rolecall granted, why, and what is under way.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::query;

use super::audit::AuditDraft;
use super::committer::Transaction;
use super::sql::{Columns, json, nanos};
use super::{Store, StoreError};
use crate::model::{
    AuditEntry, Claim, ConditionHash, DocumentKey, GrantKey, GrantState, GroupId, Intent, IntentAction, LedgerChange,
    LedgerRow, MappingKey, MemberKey, Subject, UserId,
};

/// Forgets, puts, and makes the claims of what was put exactly those given. Parameters: document and list, four times;
/// the lists are keys to forget, grants, claims, keys and claims.
pub(super) const RECORD: &str = "\
    DELETE FROM grants WHERE document = ? AND (role, condition_hash, member_key) IN \
        (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)); \
    INSERT INTO grants (document, role, condition_hash, member_key, member, condition, state, intent_action, \
            intent_etag_before, intent_present_before, intent_at, intent_plan_hash, acknowledged_at, verified_at, \
            revoking_since, held) \
        SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
            value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, \
            value ->> 14 \
        FROM json_each(?) WHERE true \
        ON CONFLICT DO UPDATE SET member = excluded.member, condition = excluded.condition, state = excluded.state, \
            intent_action = excluded.intent_action, intent_etag_before = excluded.intent_etag_before, \
            intent_present_before = excluded.intent_present_before, intent_at = excluded.intent_at, \
            intent_plan_hash = excluded.intent_plan_hash, acknowledged_at = excluded.acknowledged_at, \
            verified_at = excluded.verified_at, revoking_since = excluded.revoking_since, \
            held = excluded.held; \
    DELETE FROM claims WHERE document = ? \
        AND (role, condition_hash, member_key) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)) \
        AND (role, condition_hash, member_key, mapping, subject_kind, subject_id) NOT IN \
            (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5) \
             FROM json_each(?)); \
    INSERT INTO claims (document, role, condition_hash, member_key, mapping, subject_kind, subject_id) \
        SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5) \
        FROM json_each(?) WHERE true ON CONFLICT DO NOTHING";

const READ: &str = "SELECT g.role, g.condition_hash, g.member_key, g.member, g.condition, g.state, g.intent_action, \
        g.intent_etag_before, g.intent_present_before, g.intent_at, g.intent_plan_hash, g.acknowledged_at, \
        g.verified_at, g.revoking_since, g.held, c.mapping, c.subject_kind, c.subject_id \
    FROM grants g LEFT JOIN claims c ON c.document = g.document AND c.role = g.role \
        AND c.condition_hash = g.condition_hash AND c.member_key = g.member_key \
    WHERE g.document = ? ORDER BY g.role, g.condition_hash, g.member_key";

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
            intent.map(|intent| intent.etag_before.as_str()),
            intent.map(|intent| i64::from(intent.present_before)),
            intent.map(|intent| nanos(intent.at)),
            intent.map(|intent| intent.plan_hash.as_str()),
            row.acknowledged_at.map(nanos),
            row.verified_at.map(nanos),
            row.revoking_since.map(nanos),
            i64::from(row.held),
        ))
    }
}

/// The columns of a claim: those of its grant, mapping, kind and id of the subject.
#[derive(Serialize)]
struct ClaimColumns<'a>(&'a str, &'a str, &'a str, String, &'static str, String);

impl<'a> ClaimColumns<'a> {
    fn of(grant: &'a GrantKey, claim: &Claim) -> Self {
        let Key(role, condition_hash, member_key) = Key::of(grant);
        let (kind, id) = match claim.subject {
            Subject::User(UserId(id)) => ("user", id),
            Subject::Group(GroupId(id)) => ("group", id),
        };
        Self(role, condition_hash, member_key, claim.mapping.to_string(), kind, id.simple().to_string())
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

fn intent(columns: &mut Columns) -> Result<Option<Intent>, StoreError> {
    let action = columns.word_or_none(action_from_word)?;
    let etag_before = columns.text_or_none()?;
    let present_before = columns.integer_or_none()?;
    let at = columns.time_or_none()?;
    let plan_hash = columns.text_or_none()?;
    match (action, etag_before, present_before, at, plan_hash) {
        (None, None, None, None, None) => Ok(None),
        (Some(action), Some(etag_before), Some(present), Some(at), Some(plan_hash)) => {
            Ok(Some(Intent { action, etag_before, present_before: present != 0, at, plan_hash }))
        }
        // Half an intent must not read as none: that would forget a call whose outcome is unknown.
        _ => Err(StoreError::Damaged { what: "grants", problem: "an intent is incomplete".to_owned() }),
    }
}

fn claim(columns: &mut Columns) -> Result<Option<Claim>, StoreError> {
    let Some(mapping) = columns.parse_or_none()? else { return Ok(None) };
    let kind = columns.text()?;
    let id = columns.id()?;
    let subject = if kind == "group" { Subject::Group(GroupId(id)) } else { Subject::User(UserId(id)) };
    Ok(Some(Claim { mapping, subject }))
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
    let claims: Vec<_> =
        rows.iter().flat_map(|row| row.claims.iter().map(|claim| ClaimColumns::of(&row.grant, claim))).collect();
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

impl Store {
    /// What is known about the grants of one document, in the order of their keys.
    pub async fn ledger(&self, d: &DocumentKey) -> Result<Vec<LedgerRow>, StoreError> {
        let rows = query(READ).bind(d.to_string()).fetch_all(self.readers()).await?;
        let mut ledger: Vec<LedgerRow> = Vec::new();
        for row in &rows {
            let mut columns = Columns::of(row, "grants");
            let read = LedgerRow {
                grant: GrantKey {
                    role: columns.parse()?,
                    condition: ConditionHash::from_text(&columns.text()?),
                    member: MemberKey::of(&columns.text()?),
                },
                member: columns.text()?,
                condition: columns.json_or_none()?,
                state: columns.word(GrantState::from_word)?,
                intent: intent(&mut columns)?,
                acknowledged_at: columns.time_or_none()?,
                verified_at: columns.time_or_none()?,
                revoking_since: columns.time_or_none()?,
                held: columns.integer()? != 0,
                claims: claim(&mut columns)?.into_iter().collect(),
            };
            match ledger.last_mut() {
                Some(last) if last.grant == read.grant => last.claims.extend(read.claims),
                _ => ledger.push(read),
            }
        }
        Ok(ledger)
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
        if changes.is_empty() && audit.is_empty() {
            return Ok(());
        }
        let d = d.clone();
        self.commit_leading(move |tx| {
            Box::pin(async move {
                if !changes.is_empty() {
                    record(tx, &d, &changes).await?;
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
