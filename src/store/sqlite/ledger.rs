//! Rows of the ledger: grants, their claims, and the revisions of documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Transaction;
use super::query::{Columns, Query as _};
use crate::model::{
    AcknowledgedWrite, Claim, ConditionHash, DocumentKey, GrantKey, GrantState, Ground, GroupId, Intent, IntentAction,
    LedgerChange, LedgerRow, MappingKey, MemberKey, Revision, Role, Subject, UserId,
};
use crate::store::encoding::{json, nanos};
use crate::store::{DocumentLedger, StoreError};

pub(super) const FORGET: &str =
    "DELETE FROM grants WHERE document = ? AND role = ? AND condition_hash = ? AND member_key = ?";

pub(super) const PUT: &str = "INSERT INTO grants (document, role, condition_hash, member_key, member, condition, state, \
        intent_action, intent_etag_before, intent_present_before, intent_at, intent_plan_hash, acknowledged_at, \
        verified_at, revoking_since, held, resource_uid, stored_as, left_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
    ON CONFLICT DO UPDATE SET member = excluded.member, condition = excluded.condition, state = excluded.state, \
        intent_action = excluded.intent_action, intent_etag_before = excluded.intent_etag_before, \
        intent_present_before = excluded.intent_present_before, intent_at = excluded.intent_at, \
        intent_plan_hash = excluded.intent_plan_hash, acknowledged_at = excluded.acknowledged_at, \
        verified_at = excluded.verified_at, revoking_since = excluded.revoking_since, \
        held = excluded.held, resource_uid = excluded.resource_uid, stored_as = excluded.stored_as, \
        left_at = excluded.left_at";

/// The claims of a grant. Its whole key is given, so there are few.
pub(super) const CLAIMS_OF: &str = "SELECT mapping, subject_kind, subject_id FROM claims \
    WHERE document = ? AND role = ? AND condition_hash = ? AND member_key = ?";

pub(super) const REMOVE_CLAIM: &str = "DELETE FROM claims WHERE document = ? AND role = ? AND condition_hash = ? \
    AND member_key = ? AND mapping = ? AND subject_kind = ? AND subject_id = ?";

pub(super) const PUT_CLAIM: &str = "INSERT INTO claims (document, role, condition_hash, member_key, mapping, subject_kind, \
        subject_id, provider, groups, mapping_uid, generation, through, not_after) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
    ON CONFLICT DO UPDATE SET provider = excluded.provider, groups = excluded.groups, \
        mapping_uid = excluded.mapping_uid, generation = excluded.generation, through = excluded.through, \
        not_after = excluded.not_after \
        WHERE provider IS NOT excluded.provider OR groups IS NOT excluded.groups \
            OR mapping_uid IS NOT excluded.mapping_uid OR generation IS NOT excluded.generation \
            OR through IS NOT excluded.through OR not_after IS NOT excluded.not_after";

const GRANTS: &str = "SELECT role, condition_hash, member_key, member, condition, state, intent_action, \
    intent_etag_before, intent_present_before, intent_at, intent_plan_hash, acknowledged_at, verified_at, \
    revoking_since, held, resource_uid, stored_as, left_at \
    FROM grants WHERE document = ? ORDER BY role, condition_hash, member_key";

const CLAIMS: &str = "SELECT role, condition_hash, member_key, mapping, subject_kind, subject_id, provider, groups, \
    mapping_uid, generation, through, not_after FROM claims WHERE document = ? ORDER BY role, condition_hash, member_key";

/// How long the etag of an older version is kept. Google documents no bound for the age of a read; a few seconds are
/// observed.
const SUPERSEDED: SignedDuration = SignedDuration::from_hours(1);

/// The columns of a claim's key after those of its grant.
fn claim_columns(claim: &Claim) -> (String, &'static str, Uuid) {
    let (kind, id) = match claim.subject {
        Subject::User(UserId(id)) => ("user", id),
        Subject::Group(GroupId(id)) => ("group", id),
    };
    (claim.mapping.to_string(), kind, id)
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

fn damaged(what: &'static str, problem: &impl ToString) -> StoreError {
    StoreError::Damaged { what, problem: problem.to_string() }
}

fn put(tx: &Transaction<'_>, document: &str, row: &LedgerRow) -> Result<(), StoreError> {
    let GrantKey { role, condition, member } = &row.grant;
    let (role, condition, member) = (role.as_str(), condition.as_str(), member.as_str());
    let intent = row.intent.as_ref();
    tx.db.run(
        PUT,
        params![
            document,
            role,
            condition,
            member,
            row.member,
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
            row.left_at.map(nanos),
        ],
    )?;
    let wanted: Vec<_> = row.claims.iter().map(|claim| (claim, claim_columns(claim))).collect();
    let stored = tx.db.all("claims", CLAIMS_OF, params![document, role, condition, member], |columns| {
        Ok((columns.text()?, columns.text()?, columns.id()?))
    })?;
    for (mapping, kind, id) in &stored {
        if !wanted.iter().any(|(_, key)| (&key.0, key.1, key.2) == (mapping, kind.as_str(), *id)) {
            tx.db.run(REMOVE_CLAIM, params![document, role, condition, member, mapping, kind, id])?;
        }
    }
    for (claim, (mapping, kind, id)) in wanted {
        let ground = row.grounds.get(claim);
        let groups = ground.map(|ground| json(&ground.groups)).transpose()?;
        let through = ground.map(|ground| &ground.through).filter(|through| !through.is_empty());
        let through = through.map(json).transpose()?;
        let provider = ground.map(|ground| ground.provider.as_str());
        let uid = ground.and_then(|ground| ground.mapping_uid.as_deref());
        let generation = ground.and_then(|ground| ground.generation);
        let end = ground.and_then(|ground| ground.not_after).map(nanos);
        let key = (document, role, condition, member);
        tx.db.run(
            PUT_CLAIM,
            params![key.0, key.1, key.2, key.3, mapping, kind, id, provider, groups, uid, generation, through, end],
        )?;
    }
    Ok(())
}

/// Changes the ledger of one document. Of several changes of one grant the last one counts.
pub(crate) fn record(
    tx: &mut Transaction<'_>,
    document: &DocumentKey,
    changes: &[LedgerChange],
) -> Result<(), StoreError> {
    let mut last = BTreeMap::new();
    for change in changes {
        match change {
            LedgerChange::Put(row) => last.insert(&row.grant, Some(row)),
            LedgerChange::Remove(grant) => last.insert(grant, None),
        };
    }
    let document = document.to_string();
    for (grant, row) in last {
        if let Some(row) = row {
            put(tx, &document, row)?;
        } else {
            let GrantKey { role, condition, member } = grant;
            tx.db.run(FORGET, params![document, role.as_str(), condition.as_str(), member.as_str()])?;
        }
    }
    Ok(())
}

/// Stores the current and the older versions, and removes those older than an hour, of any document: each write removes
/// about as many as it adds.
pub(crate) fn remember(
    tx: &mut Transaction<'_>,
    document: &DocumentKey,
    write: &AcknowledgedWrite,
) -> Result<(), StoreError> {
    let document = document.to_string();
    let revision = &write.revision;
    tx.db.run(
        "INSERT INTO revisions (document, etag, beside, resource_uid) VALUES (?, ?, ?, ?) \
         ON CONFLICT DO UPDATE SET etag = excluded.etag, beside = excluded.beside, resource_uid = excluded.resource_uid",
        params![document, revision.id, json(&revision.beside)?, revision.resource_uid.as_deref()],
    )?;
    for etag in &write.superseded {
        tx.db.run(
            "INSERT INTO superseded_etags (document, etag, at) VALUES (?, ?, ?) \
             ON CONFLICT DO UPDATE SET at = excluded.at",
            params![document, etag, nanos(write.at)],
        )?;
    }
    tx.db.run("DELETE FROM superseded_etags WHERE document = ? AND etag = ?", params![document, revision.id])?;
    let before = nanos(write.at.saturating_sub(SUPERSEDED).unwrap_or(Timestamp::MIN));
    tx.db.run("DELETE FROM superseded_etags WHERE at < ?", [before])?;
    Ok(())
}

/// Reads a grant. `before`: the previous row, which usually has the same role.
fn grant(columns: &mut Columns<'_>, before: Option<&LedgerRow>) -> Result<LedgerRow, StoreError> {
    let (role, condition_hash, member_key) = (columns.text_ref()?, columns.text_ref()?, columns.text_ref()?);
    let role = match before.map(|row| &row.grant.role).filter(|before| before.as_str() == role) {
        Some(before) => before.clone(),
        None => Role::new(role).map_err(|error| damaged("grants", &error))?,
    };
    let key = GrantKey { role, condition: ConditionHash::from_text(condition_hash), member: MemberKey::of(member_key) };
    Ok(LedgerRow {
        grant: key,
        member: columns.text()?,
        condition: columns.json_or_none()?,
        state: columns.word(GrantState::from_word)?,
        intent: intent(columns)?,
        claims: BTreeSet::new(),
        grounds: BTreeMap::new(),
        acknowledged_at: columns.time_or_none()?,
        verified_at: columns.time_or_none()?,
        revoking_since: columns.time_or_none()?,
        held: columns.flag()?,
        resource_uid: columns.text_or_none()?,
        stored_as: columns.json_or_none()?.unwrap_or_default(),
        left_at: columns.time_or_none()?,
    })
}

fn intent(columns: &mut Columns<'_>) -> Result<Option<Intent>, StoreError> {
    let action = columns.word_or_none(action_from_word)?;
    let (revision, present) = (columns.text_or_none()?, columns.integer_or_none()?);
    let (at, plan_hash) = (columns.time_or_none()?, columns.text_or_none()?);
    match (action, revision, present, at, plan_hash) {
        (None, None, None, None, None) => Ok(None),
        (Some(action), Some(revision_before), Some(present), Some(at), Some(plan_hash)) => {
            Ok(Some(Intent { action, revision_before, present_before: present != 0, at, plan_hash }))
        }
        // An incomplete intent must not be read as none: a call with an unknown outcome would be forgotten.
        _ => Err(damaged("grants", &"an intent is incomplete")),
    }
}

/// A claim with the key of its grant and its ground.
struct StoredClaim<'r> {
    grant: (&'r str, &'r str, &'r str),
    claim: Claim,
    ground: Option<Ground>,
}

fn claim<'r>(
    columns: &mut Columns<'r>,
    mappings: &mut BTreeMap<String, MappingKey>,
) -> Result<StoredClaim<'r>, StoreError> {
    let grant = (columns.text_ref()?, columns.text_ref()?, columns.text_ref()?);
    let text = columns.text_ref()?;
    let mapping = if let Some(known) = mappings.get(text) {
        known.clone()
    } else {
        let key = MappingKey::try_from(text.to_owned()).map_err(|error| damaged("claims", &error))?;
        mappings.insert(text.to_owned(), key.clone());
        key
    };
    let kind = columns.text_ref()?;
    let id = columns.id()?;
    let subject = if kind == "group" { Subject::Group(GroupId(id)) } else { Subject::User(UserId(id)) };
    let (provider, groups) = (columns.parse_or_none()?, columns.json_or_none()?);
    let (uid, generation) = (columns.text_or_none()?, columns.integer_or_none()?);
    let through = columns.json_or_none()?.unwrap_or_default();
    let not_after = columns.time_or_none()?;
    let ground = match (provider, groups) {
        (Some(provider), Some(groups)) => {
            let mapping_uid = uid.as_deref().map(Arc::from);
            Some(Ground { provider, groups, through, mapping_uid, generation, not_after })
        }
        _ => None,
    };
    Ok(StoredClaim { grant, claim: Claim { mapping, subject }, ground })
}

/// The ledger of one document.
pub(crate) fn load(db: &Connection, document: &DocumentKey) -> Result<DocumentLedger, StoreError> {
    let document = document.to_string();
    let mut rows: Vec<LedgerRow> = Vec::new();
    db.each("grants", GRANTS, [&document], |mut columns| {
        let row = grant(&mut columns, rows.last())?;
        rows.push(row);
        Ok(())
    })?;
    // Both are sorted by key.
    let mut mappings = BTreeMap::new();
    let mut at = 0;
    db.each("claims", CLAIMS, [&document], |mut columns| {
        let StoredClaim { grant, claim, ground } = claim(&mut columns, &mut mappings)?;
        let is_of = |row: &LedgerRow| {
            let GrantKey { role, condition, member } = &row.grant;
            (role.as_str(), condition.as_str(), member.as_str()) == grant
        };
        while rows.get(at).is_some_and(|row| !is_of(row)) {
            at += 1;
        }
        let row = rows.get_mut(at).ok_or_else(|| damaged("claims", &"a claim has no grant"))?;
        row.grounds.extend(ground.map(|ground| (claim.clone(), ground)));
        row.claims.insert(claim);
        Ok(())
    })?;
    let sql = "SELECT etag, beside, resource_uid FROM revisions WHERE document = ?";
    let revision = db.first("revisions", sql, [&document], |columns| {
        Ok(Revision { id: columns.text()?, beside: columns.json()?, resource_uid: columns.text_or_none()? })
    })?;
    Ok(DocumentLedger { rows, revision })
}

/// True when the etag is that of a version of the document that a write of ours superseded within the last hour.
pub(crate) fn is_superseded(
    db: &Connection,
    document: &DocumentKey,
    etag: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let since = nanos(now.saturating_sub(SUPERSEDED).unwrap_or(Timestamp::MIN));
    let sql = "SELECT EXISTS (SELECT 1 FROM superseded_etags WHERE document = ? AND etag = ? AND at > ?)";
    db.one("superseded_etags", sql, params![document.to_string(), etag, since], |columns| columns.flag())
}

/// All documents in the ledger, each with the mappings that hold claims there.
pub(crate) fn documents(db: &Connection) -> Result<Vec<(DocumentKey, BTreeSet<MappingKey>)>, StoreError> {
    let sql = "SELECT g.document, c.mapping FROM (SELECT DISTINCT document FROM grants) g \
        LEFT JOIN (SELECT DISTINCT document, mapping FROM claims) c ON c.document = g.document ORDER BY g.document";
    let mut documents: Vec<(DocumentKey, BTreeSet<MappingKey>)> = Vec::new();
    db.each("claims", sql, [], |mut columns| {
        let document: DocumentKey = columns.parse()?;
        let mapping = columns.parse_or_none()?;
        match documents.last_mut() {
            Some((last, mappings)) if *last == document => mappings.extend(mapping),
            _ => documents.push((document, mapping.into_iter().collect())),
        }
        Ok(())
    })?;
    Ok(documents)
}

/// The documents on which a mapping holds claims.
pub(crate) fn claimed_documents(db: &Connection, mapping: &MappingKey) -> Result<Vec<DocumentKey>, StoreError> {
    // Of a grant that somebody else made, nothing has to be removed.
    let sql = "SELECT DISTINCT document FROM claims JOIN grants USING (document, role, condition_hash, member_key) \
        WHERE mapping = ? AND left_at IS NULL ORDER BY document";
    db.all("claims", sql, [mapping.to_string()], |columns| columns.parse())
}
