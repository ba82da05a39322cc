//! The guard's part in a plan: the removals that it decides about, and the removals that it holds.
//!
//! The decision is made outside the plan, where people are counted over documents and time; see
//! [`RemovalLimit`](crate::model::RemovalLimit). A plan that needs a decision is made again with the answer.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::model::{Claim, Desired, DocumentKey, GrantKey, MappingKey, Removal, Subject};

use super::{Held, HeldPart, Step, grounds};

/// Version of the guard's rules. Part of every hash, so that a release made under other rules releases nothing.
const GENERATION: &str = "compiled-in/2";

/// SHA-256 over texts, each prefixed with its length.
struct Texts(Sha256);

impl Texts {
    fn new() -> Self {
        let mut texts = Self(Sha256::new());
        texts.add(GENERATION);
        texts
    }

    fn add(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn grant(&mut self, grant: &GrantKey) {
        self.add(grant.role.as_str());
        self.add(grant.condition.as_str());
        self.add(grant.member.as_str());
    }

    fn short(self) -> String {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0.finalize()[..8]);
        format!("{:016x}", u64::from_be_bytes(first))
    }
}

/// 16 hex digits over the document, the version of the guard's rules and the items in their order. Neither revision nor
/// time is included, so that the digest is the same in every reconcile.
pub(super) fn digest<'a>(document: &DocumentKey, items: impl Iterator<Item = (&'a str, &'a GrantKey)>) -> String {
    let mut texts = Texts::new();
    texts.add(&document.to_string());
    for (sign, grant) in items {
        texts.add(sign);
        texts.grant(grant);
    }
    texts.short()
}

/// The hash by which the held removals of one mapping and kind are released: 16 hex digits over all documents that have
/// any, in the order of the documents. It does not change as long as the same removals are held.
#[must_use]
pub(crate) fn held_hash<'a>(
    mapping: &MappingKey,
    leavers: bool,
    parts: impl Iterator<Item = (&'a DocumentKey, &'a HeldPart)>,
) -> String {
    let mut texts = Texts::new();
    texts.add(&mapping.to_string());
    texts.add(if leavers { "leavers" } else { "removals" });
    for (document, part) in parts {
        texts.add(&document.to_string());
        texts.0.update(part.digest);
    }
    texts.short()
}

/// The removals that the guard has to decide about. A removal that passed once passes again, whatever the outcome of
/// the call.
///
/// A claim whose end was said in the manifest, and one that goes on under another condition, is no loss that anybody has to
/// decide about.
pub(super) fn asks(candidates: &[Step], leavers: &BTreeSet<Subject>, desired: &Desired) -> Vec<Removal> {
    let fresh = candidates.iter().filter(|step| step.row.held || step.row.revoking_since.is_none());
    let concerns = |step: &Step, claim: &Claim| {
        !step.continued.contains(claim) && !desired.is_over(claim, &step.row.grant.role, step.row.grounds.get(claim))
    };
    let of = |step: &Step, claim: &Claim| Removal {
        grant: step.grant().clone(),
        claim: claim.clone(),
        leaver: leavers.contains(&claim.subject),
    };
    let claims = fresh.flat_map(|step| step.row.claims.iter().map(move |claim| (step, claim)));
    claims.filter(|(step, claim)| concerns(step, claim)).map(|(step, claim)| of(step, claim)).collect()
}

/// Splits the removals into those that pass and those that are held. A grant stays only for the claims that are held.
pub(super) fn split(candidates: Vec<Step>, held: &BTreeSet<Removal>) -> (Vec<Step>, Vec<Step>, Held) {
    let mut claims: BTreeMap<&GrantKey, Vec<&Removal>> = BTreeMap::new();
    for removal in held {
        claims.entry(&removal.grant).or_default().push(removal);
    }
    let (mut pass, mut kept) = (Vec::new(), Vec::new());
    let mut parts: BTreeMap<(MappingKey, bool), Vec<Removal>> = BTreeMap::new();
    for mut step in candidates {
        let mut own = BTreeSet::new();
        for removal in claims.get(step.grant()).into_iter().flatten() {
            if step.row.claims.contains(&removal.claim) {
                own.insert(removal.claim.clone());
                let part = (removal.claim.mapping.clone(), removal.leaver);
                parts.entry(part).or_default().push((*removal).clone());
            }
        }
        if own.is_empty() {
            pass.push(step);
        } else {
            step.row.claims.clone_from(&own);
            grounds::retain(&mut step.row);
            step.restore.claims = own;
            grounds::retain(&mut step.restore);
            kept.push(step);
        }
    }
    let parts = parts.into_iter().map(|((mapping, leavers), removals)| part(mapping, leavers, removals)).collect();
    (pass, kept, Held { parts })
}

fn part(mapping: MappingKey, leavers: bool, removals: Vec<Removal>) -> HeldPart {
    let mut texts = Texts::new();
    for removal in &removals {
        texts.grant(&removal.grant);
        texts.add(&match removal.claim.subject {
            Subject::User(id) => id.to_string(),
            Subject::Group(id) => id.to_string(),
        });
    }
    HeldPart { mapping, leavers, removals, digest: texts.0.finalize().into() }
}
