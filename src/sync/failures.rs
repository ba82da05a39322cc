//! Failures of one document, in the form that a status shows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Inner;
use super::additions::RefusedGrant;
use super::report::{quoted, shown};
use super::state::{DocumentState, State};
use crate::model::{DocumentKey, MappingKey, Reason, Subject};
use crate::plan;
use crate::status::Failure;

/// Largest number of refused people or roles named in one message.
const NAMED: usize = 3;

impl DocumentState {
    /// The failures of a document for one mapping. Refused additions are reported to the mappings that want them.
    pub(super) fn failures(
        &self,
        inner: &Inner,
        state: &State,
        document: &DocumentKey,
        key: &MappingKey,
    ) -> Vec<Failure> {
        let since = self.failing_since.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut failures: Vec<Failure> = Vec::new();
        let is_foreign = |reason: Reason| reason == Reason::ForeignMemberRejected;
        if let Some((reason, message)) = self.error.as_ref().filter(|(reason, _)| !is_foreign(*reason)) {
            failures.push(Failure { reason: *reason, message: quoted(inner, state, message), since });
        }
        for member in &self.forbidden {
            let who = shown(inner, state, member, None);
            let message =
                format!("Google stores {who} under an address outside allowedDomains on {}", document.short());
            let since = self.forbidden_since.unwrap_or(since);
            failures.push(Failure { reason: Reason::PrincipalRespelled, message, since });
        }
        let counts = self.claim_counts.get(key).copied().unwrap_or_default();
        if let Some(foreign) = self.additions.foreign.as_ref()
            && counts.pending + counts.failed + counts.revoking > 0
        {
            let message = format!(
                "Google refuses the policy of {} ({}) also without what rolecall would add: {}",
                document.short(),
                foreign.reason,
                quoted(inner, state, &foreign.message)
            );
            failures.push(Failure { reason: Reason::ForeignMemberRejected, message, since: foreign.since });
        }
        failures.extend(refused_additions(&self.additions.refused, document, key));
        if let Some(unresolved) = &self.additions.unresolved
            && let Some(count) = unresolved.mappings.get(key)
        {
            let message = format!(
                "Google refuses one or more of {count} additions to {} without naming them; finding out which continues at {:.0}",
                document.short(),
                unresolved.until
            );
            match failures.iter_mut().find(|failure| failure.reason == unresolved.reason) {
                Some(failure) => failure.message = format!("{}; {message}", failure.message),
                None => failures.push(Failure { reason: unresolved.reason, message, since: unresolved.since }),
            }
        }
        if let Some(limit) = self.found.as_ref().and_then(|found| found.limit.as_ref()) {
            let message = format!(
                "the policy of {} would name {} principals, {} are allowed; {} grants are left out",
                document.short(),
                limit.appearances,
                limit.limit,
                limit.withheld.len()
            );
            failures.push(Failure { reason: plan::LimitExceeded::REASON, message, since });
        }
        failures
    }
}

/// The refused additions of one mapping, one sentence per reason.
fn refused_additions(refused: &[RefusedGrant], document: &DocumentKey, key: &MappingKey) -> Vec<Failure> {
    let mut by_reason: BTreeMap<(bool, Reason), Vec<&RefusedGrant>> = BTreeMap::new();
    for grant in refused.iter().filter(|grant| grant.mappings.contains(key)) {
        by_reason.entry((grant.of_role, grant.reason)).or_default().push(grant);
    }
    by_reason
        .into_iter()
        .map(|((of_role, reason), grants)| {
            let named: BTreeSet<String> = grants
                .iter()
                .map(|grant| match grant.subject {
                    _ if of_role => grant.role.clone(),
                    Some(Subject::User(id)) => format!("user {id}"),
                    Some(Subject::Group(id)) => format!("group {id}"),
                    None => "a member without any claim".to_owned(),
                })
                .collect();
            let shown: Vec<&str> = named.iter().take(NAMED).map(String::as_str).collect();
            let more = match named.len().saturating_sub(shown.len()) {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let message = format!("Google refused {}{more} on {}", shown.join(", "), document.short());
            let since = grants.iter().map(|grant| grant.since).min().unwrap_or(Timestamp::UNIX_EPOCH);
            Failure { reason, message, since }
        })
        .collect()
}
