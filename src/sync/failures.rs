//! Failures of one document, in the form that a status shows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Inner;
use super::additions::{Foreign, RefusedGrant};
use super::advice;
use super::report::{quoted, shown};
use super::state::{DocumentState, State};
use crate::model::{DocumentKey, MappingKey, MemberKey, Reason, Subject};
use crate::plan;
use crate::status::Failure;

/// Largest number of refused people, roles or foreign members named in one message.
const NAMED: usize = 30;
/// Number of foreign members with the command that takes them out.
const COMMANDS: usize = 3;

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
        let counts = self.claim_counts.get(key).copied().unwrap_or_default();
        let concerns = |reason: Reason| match reason {
            // Reported below.
            Reason::ForeignMemberRejected => false,
            // Whose grants stand is not concerned by those that do not fit.
            Reason::PolicyFull => counts.pending + counts.failed + counts.revoking > 0,
            _ => true,
        };
        if let Some((reason, message)) = self.error.as_ref().filter(|(reason, _)| concerns(*reason)) {
            failures.push(Failure { reason: *reason, message: quoted(inner, state, message), since });
        }
        for member in &self.forbidden {
            let who = shown(inner, state, member, None);
            let message =
                format!("Google stores {who} under an address outside allowedDomains on {}", document.short());
            let since = self.forbidden_since.unwrap_or(since);
            failures.push(Failure { reason: Reason::PrincipalRespelled, message, since });
        }
        if let Some(foreign) = self.additions.foreign.as_ref()
            && counts.pending + counts.failed + counts.revoking > 0
        {
            let message = format!(
                "Google refuses the policy of {} ({}) also without what rolecall would add: {}{}",
                document.short(),
                foreign.reason,
                quoted(inner, state, &foreign.message),
                take_out(foreign, document, |member| shown(inner, state, member, None)),
            );
            failures.push(Failure { reason: Reason::ForeignMemberRejected, message, since: foreign.since });
        }
        if let Some(refused) = self.removals.refused.as_ref().filter(|_| counts.revoking > 0) {
            let message = format!(
                "Google refuses to remove grants from the policy of {}, which stay until it permits that: {}",
                document.short(),
                quoted(inner, state, &refused.message)
            );
            failures.push(Failure { reason: refused.reason, message, since: refused.since });
        }
        let words = |text: &str| quoted(inner, state, text);
        failures.extend(refused_additions(&self.additions.refused, document, key, &words));
        failures.extend(self.contested(key));
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
        let limit = self.found.as_ref().and_then(|found| found.limit.as_ref());
        if let Some((limit, withheld)) = limit.and_then(|limit| Some((limit, *limit.withheld_of.get(key)?))) {
            let message = format!(
                "the policy of {} would name {} {}, {} are allowed; {withheld} of the grants of this mapping are left out",
                document.short(),
                limit.appearances,
                if limit.of_groups { "groups and domains" } else { "principals" },
                limit.limit,
            );
            failures.push(Failure { reason: plan::LimitExceeded::REASON, message, since });
        }
        failures
    }
}

/// The members that Google named, and the commands that take them out.
fn take_out(foreign: &Foreign, document: &DocumentKey, shown: impl Fn(&MemberKey) -> String) -> String {
    if foreign.members.is_empty() {
        return String::new();
    }
    let of = |(member, roles): (&MemberKey, &BTreeSet<String>)| {
        format!("{} ({})", shown(member), roles.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    let named: Vec<String> = foreign.members.iter().take(NAMED).map(of).collect();
    let more = match foreign.members.len().saturating_sub(named.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let removals = foreign.members.iter().flat_map(|(member, roles)| roles.iter().map(move |role| (member, role)));
    let commands: Vec<String> = removals
        .take(COMMANDS)
        .filter_map(|(member, role)| advice::take_out_command(document, &shown(member), role))
        .map(|command| format!("`{command}`"))
        .collect();
    let by = if commands.is_empty() { String::new() } else { format!(", for example with {}", commands.join(", ")) };
    format!("; it named {}{more}{by}; `rolecall status --show-principals` has the names", named.join(", "))
}

impl DocumentState {
    /// The contested grants of one mapping that are missing now.
    fn contested(&self, key: &MappingKey) -> Option<Failure> {
        let missing = self.claim_counts.get(key).is_some_and(|counts| counts.failed > 0);
        let since = self.contests.contested(Some(key)).min().filter(|_| missing)?;
        let contested = self.contests.contested(Some(key)).count();
        let message = match contested {
            1 => "a grant keeps being taken away by somebody else".to_owned(),
            n => format!("{n} grants keep being taken away by somebody else"),
        };
        Some(Failure { reason: Reason::Contested, message, since })
    }
}

/// The refused additions of one mapping, one sentence per reason.
fn refused_additions(
    refused: &[RefusedGrant],
    document: &DocumentKey,
    key: &MappingKey,
    quoted: &dyn Fn(&str) -> String,
) -> Vec<Failure> {
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
                    _ if grant.condition.is_some() => {
                        format!("the condition `{}`", grant.condition.as_deref().unwrap_or_default())
                    }
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
            let text = grants.iter().find_map(|grant| grant.message.as_deref());
            let text = text.map_or_else(String::new, |text| format!(": {}", quoted(text)));
            let message = format!("Google refused {}{more} on {}{text}", shown.join(", "), document.short());
            let since = grants.iter().map(|grant| grant.since).min().unwrap_or(Timestamp::UNIX_EPOCH);
            Failure { reason, message, since }
        })
        .collect()
}
