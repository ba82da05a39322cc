//! Members that Google stores under another spelling than they were sent: an alias becomes the primary address, a
//! renamed account has a new address, a deleted account becomes `deleted:…?uid=`. Ownership follows the account.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{GrantKey, GrantState, LedgerRow, Live, MemberKey, Revision, Role};

/// The rows of one role and condition whose spelling changed, and the spellings found instead.
type Changed = BTreeMap<(Role, crate::model::ConditionHash), (Vec<GrantKey>, BTreeSet<String>)>;

/// True when the grant of this row is in the policy, under its own spelling or under all of its known spellings.
pub(super) fn is_whole(row: &LedgerRow, live: &Live) -> bool {
    live.has(&row.grant) || row.spellings().all(|spelling| live.has(&spelling))
}

/// True when the grant of this row is in the policy. When several spellings of rolecall cannot be told apart, any one
/// that is left may belong to this row, and is removed when the person leaves.
pub(super) fn is_present(row: &LedgerRow, live: &Live) -> bool {
    is_whole(row, live) || (row.state == GrantState::Owned && row.spellings().any(|spelling| live.has(&spelling)))
}

/// The known spellings of the row that are in the policy.
fn spellings_left(row: &LedgerRow, live: &Live) -> BTreeSet<String> {
    let stands = |member: &&String| live.has(&GrantKey { member: MemberKey::of(member), ..row.grant.clone() });
    row.stored_as.iter().filter(stands).cloned().collect()
}

/// The tombstones that Google leaves of the deleted accounts of a row: `deleted:user:X?uid=N`. `beside`: foreign
/// members at the time of the last acknowledged write. If they are not known, only tombstones that replaced the member
/// count.
pub(super) fn tombstones(row: &LedgerRow, live: &Live, beside: Option<&BTreeSet<String>>) -> BTreeSet<GrantKey> {
    let names: Vec<String> = row.spellings().map(|spelling| format!("deleted:{}?uid=", spelling.member)).collect();
    let is_of = |member: &MemberKey| names.iter().any(|name| member.as_str().starts_with(name.as_str()));
    if beside.is_none() && is_present(row, live) {
        return BTreeSet::new();
    }
    live.beside(&row.grant)
        .filter(|(grant, _)| is_of(&grant.member))
        .filter(|(grant, _)| beside.is_none_or(|beside| !beside.contains(&grant.digest())))
        .map(|(grant, _)| grant.clone())
        .collect()
}

/// The spellings that replaced ours in a document with the revision of our last acknowledged write. Nobody else has
/// written since, so a new spelling there is one that Google gave to our members. Empty where it may just as well
/// belong to a foreign member.
pub(super) fn took_their_place(
    rows: &BTreeMap<&GrantKey, &Arc<LedgerRow>>,
    live: &Live,
    revision: &Revision,
) -> BTreeMap<GrantKey, BTreeSet<String>> {
    let is_missing = |row: &LedgerRow| {
        row.state == GrantState::Owned
            && row.intent.is_none()
            && !is_whole(row, live)
            && tombstones(row, live, Some(&revision.beside)).is_empty()
    };
    let missing: Vec<&GrantKey> = rows.values().filter(|row| is_missing(row)).map(|row| &row.grant).collect();
    if missing.is_empty() {
        return BTreeMap::new();
    }
    let known: BTreeSet<GrantKey> = rows.values().flat_map(|row| row.spellings().chain([row.grant.clone()])).collect();
    let there: BTreeSet<String> = live.grants().map(|(grant, _)| grant.digest()).collect();
    // A grant that was taken over since then was foreign at that time.
    let ours: BTreeSet<String> = known.iter().map(GrantKey::digest).collect();
    if !revision.beside.iter().all(|digest| there.contains(digest) || ours.contains(digest)) {
        return BTreeMap::new();
    }
    let mut changed = Changed::new();
    for grant in missing {
        let entry = changed.entry((grant.role.clone(), grant.condition.clone())).or_default();
        entry.0.push(grant.clone());
    }
    for (grant, spelling) in live.grants() {
        let new = !known.contains(grant) && !revision.beside.contains(&grant.digest());
        if let Some(entry) = changed.get_mut(&(grant.role.clone(), grant.condition.clone()))
            && new
            && !spelling.starts_with("deleted:")
        {
            entry.1.insert(spelling.to_owned());
        }
    }
    changed
        .into_values()
        .filter(|(_, new)| !new.is_empty())
        .flat_map(|(rows, new)| rows.into_iter().map(move |row| (row, new.clone())))
        .map(|(grant, new)| {
            let left = rows.get(&grant).map(|row| spellings_left(row, live)).unwrap_or_default();
            (grant, &new | &left)
        })
        .collect()
}

/// A member that Google did not store as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Respelling {
    /// The grant.
    pub(super) grant: GrantKey,
    /// The spellings stored for it; several where they cannot be told apart.
    pub(super) stored_as: BTreeSet<String>,
    /// True when the policy before the write lacked these spellings, which proves that they belong to rolecall.
    pub(super) owned: bool,
}

/// A document as it was sent: as it was read, with these changes.
pub(super) struct Sent<'a> {
    pub(super) read: &'a Live,
    pub(super) removed: &'a BTreeSet<GrantKey>,
    pub(super) added: BTreeSet<&'a GrantKey>,
}

impl Sent<'_> {
    fn has(&self, grant: &GrantKey) -> bool {
        self.added.contains(grant) || (self.read.has(grant) && !self.removed.contains(grant))
    }
}

/// Compares Google's answer with the sent policy. `rows`: the grants of rolecall that were sent. `before`: those of
/// which a part remained, as they were.
pub(super) fn respelled(
    sent: &Sent<'_>,
    answer: &Live,
    rows: &[&LedgerRow],
    before: &BTreeMap<&GrantKey, &LedgerRow>,
) -> Vec<Respelling> {
    let was_sent = |row: &LedgerRow| sent.has(&row.grant) || row.spellings().all(|spelling| sent.has(&spelling));
    let gone: Vec<&LedgerRow> = rows.iter().copied().filter(|row| !is_whole(row, answer) && was_sent(row)).collect();
    let mut found = Vec::new();
    for row in gone {
        let here = || answer.beside(&row.grant).filter(|(_, spelling)| !spelling.starts_with("deleted:"));
        let new: BTreeSet<String> =
            here().filter(|(grant, _)| !sent.has(grant)).map(|(_, spelling)| spelling.to_owned()).collect();
        let left = spellings_left(before.get(&row.grant).copied().unwrap_or(row), answer);
        if !new.is_empty() || !left.is_empty() {
            found.push(Respelling { grant: row.grant.clone(), stored_as: &new | &left, owned: true });
            continue;
        }
        // It is one of the grants sent in the same call; Google does not say which one.
        let ours: BTreeSet<GrantKey> = rows
            .iter()
            .filter(|other| other.state == GrantState::Owned && other.grant != row.grant)
            .flat_map(|row| row.spellings())
            .collect();
        let owned = here().all(|(grant, _)| ours.contains(grant));
        let candidates: BTreeSet<String> = here().map(|(_, spelling)| spelling.to_owned()).collect();
        if !candidates.is_empty() {
            found.push(Respelling { grant: row.grant.clone(), stored_as: candidates, owned });
        }
    }
    found
}

/// The members to remove together with the leaving grants, where Google stores several grants under spellings that
/// cannot be told apart. All of them are removed; `stay` lists the grants to write again in the same call.
pub(super) fn leave_together(
    leaving: &LedgerRow,
    stay: &[&LedgerRow],
    live: &Live,
) -> (BTreeSet<GrantKey>, BTreeSet<GrantKey>) {
    let mut out: BTreeSet<GrantKey> = leaving.spellings().filter(|key| live.has(key)).collect();
    if out.is_empty() && live.has(&leaving.grant) {
        out.insert(leaving.grant.clone());
    }
    let mut again = BTreeSet::new();
    loop {
        let sharing = stay.iter().filter(|row| !row.stored_as.is_empty() && !again.contains(&row.grant));
        let next: Vec<&&LedgerRow> = sharing.filter(|row| row.spellings().any(|key| out.contains(&key))).collect();
        if next.is_empty() {
            break;
        }
        for row in next {
            again.insert(row.grant.clone());
            if row.state == GrantState::Owned {
                out.extend(row.spellings().filter(|key| live.has(key)));
            }
        }
    }
    // A grant that is sent again under the very spelling that is stored needs no change.
    for row in stay.iter().filter(|row| row.stored_as.is_empty() || again.contains(&row.grant)) {
        out.remove(&row.grant);
    }
    again.retain(|grant| !live.has(grant));
    (out, again)
}
