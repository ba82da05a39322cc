//! Checks: of statuses at any time; of documents, ledger, audit and queue when everything is idle.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::driver::{Simulation, okta};
use super::expect::Expected;
use super::facts::{Facts, Team};
use crate::api::RoleMappingStatus;
use crate::api::condition::kind;
use crate::model::{
    AuditOutcome, Claim, DirectoryChange, DocumentKey, GrantKey, GrantState, GroupFacts, GroupId, LedgerRow,
    MappingKey, ProviderName, Reason, Subject, UserId,
};
use crate::plan::{Cause, PRINCIPAL_RESPELLED, RESOURCE_RECREATED};
use crate::store::{AuditRow, Decision};
use crate::sync::Engine;
use crate::target::scripted::{Origin, Write};

/// An audit row on one line.
pub(super) fn shown(row: &AuditRow) -> String {
    let entry = &row.entry;
    let grant = entry.grant.as_ref().map(|grant| format!("{} {}", grant.role, grant.member)).unwrap_or_default();
    let document = entry.document.as_ref().map(DocumentKey::short).unwrap_or_default();
    let claims: Vec<String> =
        entry.claims.iter().map(|claim| format!("{}:{}", claim.mapping.name(), &claim.subject[..6])).collect();
    format!(
        "audit {} {} {} {document} {grant} {} {} {} -> {} {claims:?}",
        row.seq,
        entry.at,
        entry.action,
        entry.outcome.as_str(),
        entry.reason.as_deref().unwrap_or_default(),
        entry.revision_before.as_deref().unwrap_or_default(),
        entry.revision_after.as_deref().unwrap_or_default(),
    )
}

/// True when `Drifted` reports a contest, which outlives a start. The counts do not.
fn is_contested(conditions: &[Condition]) -> bool {
    conditions.iter().any(|one| one.type_ == kind::DRIFTED && Reason::Contested.word() == one.reason)
}

fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

fn ready(status: &RoleMappingStatus) -> Option<(bool, &str)> {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status == "True", ready.reason.as_str()))
}

/// The grants of one document in the order of the audit.
type History<'a> = BTreeMap<(&'a DocumentKey, &'a GrantKey), Vec<&'a AuditRow>>;

impl Simulation {
    /// All audit rows.
    pub(super) async fn audit(&self) -> Vec<AuditRow> {
        let mut rows: Vec<AuditRow> = Vec::new();
        loop {
            let after = rows.last().map_or(0, |row| row.seq);
            let page = self.store().audit_after(after, 1000).await.expect("audit rows");
            if page.is_empty() {
                return rows;
            }
            rows.extend(page);
        }
    }

    /// The ledger and the statuses, for a trace.
    pub(super) async fn remembered(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (document, _) in self.store().ledger_documents().await.expect("documents") {
            for row in self.store().ledger(&document).await.expect("the ledger") {
                lines.push(format!("ledger {} {row:?}", document.short()));
            }
        }
        if let Some(process) = &self.leader {
            for key in process.engine.mappings() {
                let phase = process.engine.mapping_phase(&key);
                lines.push(format!("status {key} {phase:?} {:?}", process.cache.mapping(&key)));
            }
        }
        lines
    }

    /// Checks what must hold at any time.
    pub(super) fn look(&mut self) {
        let Some(process) = &self.leader else { return };
        for (key, status) in
            process.engine.mappings().into_iter().filter_map(|key| Some((key.clone(), process.cache.mapping(&key)?)))
        {
            let Some(grants) = &status.grants else { continue };
            if grants.desired != grants.acknowledged + grants.pending + grants.held + grants.failed {
                self.problems.push(format!("{key}: the counts do not add up: {grants:?}"));
            }
            if ready(&status).is_some_and(|(is, _)| is) && (grants.failed > 0 || grants.revoking > 0) {
                self.problems.push(format!("{key}: Ready=True of a partial result: {grants:?}"));
            }
            let drift = status.drift.clone().unwrap_or_default();
            if is_true(&status.conditions, kind::DRIFTED) && drift.is_empty() && !is_contested(&status.conditions) {
                self.problems.push(format!("{key}: Drifted=True without drift"));
            }
        }
        for (name, status) in
            process.engine.targets().into_iter().filter_map(|name| Some((name.clone(), process.cache.target(&name)?)))
        {
            let is_tested =
                |one: &Condition| one.type_ == kind::PERMISSIONS_VALID && one.reason != Reason::Progressing.word();
            let tested = status.conditions.iter().any(is_tested);
            if is_true(&status.conditions, kind::PERMISSIONS_VALID) != (tested && status.missing_permissions.is_empty())
            {
                self.problems.push(format!("{name}: PermissionsValid contradicts {:?}", status.missing_permissions));
            }
            let failed = status.policies.map_or(0, |policies| policies.failed);
            if is_true(&status.conditions, kind::READY) && failed > 0 {
                self.problems.push(format!("{name}: Ready=True of {failed} failed policies"));
            }
            let counts = status.drift_counts.unwrap_or_default();
            let contested = is_contested(&status.conditions);
            if is_true(&status.conditions, kind::DRIFTED) == counts.is_empty() && counts.reverted == 0 && !contested {
                self.problems.push(format!("{name}: Drifted contradicts {counts:?}"));
            }
        }
    }

    /// Statuses at rest that contradict each other: what a mapping reports, its target counts.
    fn contradictions(&self) -> Vec<String> {
        let Some(process) = &self.leader else { return Vec::new() };
        let targets: Vec<_> = process.engine.targets().iter().filter_map(|name| process.cache.target(name)).collect();
        let any = |type_: &str| targets.iter().any(|status| is_true(&status.conditions, type_));
        let mut problems = Vec::new();
        for (key, status) in
            process.engine.mappings().into_iter().filter_map(|key| Some((key.clone(), process.cache.mapping(&key)?)))
        {
            let of_covered = status
                .resources
                .iter()
                .any(|resource| process.engine.is_covered(&format!("run:{}", resource.resource)));
            if is_true(&status.conditions, kind::DRIFTED) && of_covered && !any(kind::DRIFTED) {
                problems.push(format!("{key} is Drifted and no target is: {:?}", status.drift));
            }
        }
        problems
    }

    /// The problems when everything should be idle, starting with the cheapest checks. `all`: also compares ledger,
    /// audit, journal and directory.
    pub(super) async fn unrest(&mut self, all: bool) -> Vec<String> {
        let Some(process) = &self.leader else { return vec!["no process runs".to_owned()] };
        if let Some(busy) = process.engine.busy() {
            return vec![busy];
        }
        if self.target.under_way() > 0 {
            return vec!["a write is under way".to_owned()];
        }
        let (engine, cache) = (process.engine.clone(), process.cache.clone());
        let behind = self.store().highest_seq().await.expect("a position") > engine.directory_seq();
        if behind {
            return vec!["the engine is behind the event log".to_owned()];
        }
        self.memory.set_pins(self.store().pins().await.expect("pins"));
        let facts = self.facts().clone();
        self.memory.now = self.now();
        let expected = self.memory.expected(&facts, &self.target, &self.rules);
        let (mut problems, mut excess) = (Vec::new(), Vec::new());
        for document in self.target.documents() {
            let live = self.target.origins(&document);
            let (none, must) = (BTreeSet::new(), expected.must.get(&document).cloned().unwrap_or_default());
            let may = expected.may.get(&document).unwrap_or(&none);
            for grant in must.iter().filter(|grant| !live.contains_key(*grant)) {
                problems.push(format!("{} lacks {} as {}", document.short(), grant.member, grant.role));
            }
            let ours = live.iter().filter(|(_, origin)| **origin == Origin::Engine).map(|(grant, _)| grant);
            let more = ours.filter(|grant| !must.contains(*grant) && !may.contains(*grant));
            excess.extend(more.map(|grant| (document.clone(), grant.clone())));
        }
        if !excess.is_empty() {
            let audit = self.audit().await;
            let is_done = |row: &&AuditRow| row.entry.outcome == AuditOutcome::Acknowledged;
            let done: BTreeSet<&str> =
                audit.iter().filter(is_done).filter_map(|row| row.entry.revision_after.as_deref()).collect();
            let is_excused = |document: &DocumentKey, grant: &GrantKey| {
                self.is_unattributed(document, grant, &done) || self.was_forgotten(document, grant, &audit)
            };
            for (document, grant) in excess.iter().filter(|(document, grant)| !is_excused(document, grant)) {
                problems.push(format!("{} still has {} as {}", document.short(), grant.member, grant.role));
            }
        }
        for key in &expected.clear {
            let status = cache.mapping(key);
            if status.as_ref().and_then(ready).is_none_or(|(is, _)| !is) {
                let why = status.as_ref().and_then(ready).map(|(_, reason)| reason.to_owned());
                problems.push(format!("{key} is not Ready although nothing is in the way: {why:?}"));
            }
        }
        for (key, mapping) in &facts.mappings {
            // Without a target, it is unknown whether a resource that does not answer is gone.
            if mapping.phase == super::facts::Phase::Terminating && facts.is_covered() {
                problems.push(format!("{key} was deleted and keeps its finalizer"));
            }
        }
        problems.extend(self.contradictions());
        if facts.uninstall.is_some() {
            problems.extend(self.not_uninstalled(&engine).await);
        }
        if problems.is_empty() && all {
            problems = self.disagreements(&expected).await;
        }
        problems
    }

    /// What an uninstall has left.
    async fn not_uninstalled(&self, engine: &Engine) -> Vec<String> {
        let decisions = self.store().decisions().await.expect("decisions");
        let is_recorded = decisions.iter().any(|pending| pending.decision == Decision::Uninstalled);
        let unrecorded = (!is_recorded).then(|| "the end of the uninstall is not recorded".to_owned());
        let left = engine.mappings().into_iter().map(|key| format!("{key} is left after the uninstall"));
        unrecorded.into_iter().chain(left).collect()
    }

    /// True when the target stored a grant under another spelling than it was sent and the answer was lost. The next
    /// read then shows a member that cannot be told from a foreign one, so it is not touched.
    fn is_unattributed(&self, document: &DocumentKey, grant: &GrantKey, done: &BTreeSet<&str>) -> bool {
        let facts = self.facts();
        let is_it = |sent: &GrantKey| sent != grant && facts.stored(sent) == *grant;
        let journal = self.target.journal();
        let unknown = journal.iter().filter(|write| !done.contains(write.revision_after.as_str()));
        unknown.filter(|write| write.document == *document).any(|write| write.add.iter().any(is_it))
    }

    /// True when the engine made a grant on a resource that had been made again, while the last list still named the
    /// former resource, and with the next list forgot that grant as if it had been made on the former one.
    fn was_forgotten(&self, document: &DocumentKey, grant: &GrantKey, audit: &[AuditRow]) -> bool {
        let facts = self.facts();
        let is_it = |sent: &GrantKey| sent == grant || facts.stored(sent) == *grant;
        let rows: Vec<&AuditRow> = audit
            .iter()
            .filter(|row| row.entry.document.as_ref() == Some(document) && row.entry.grant.as_ref().is_some_and(is_it))
            .collect();
        let Some(granted) = rows.iter().rposition(|row| row.entry.action == "grant" && took_effect(row)) else {
            return false;
        };
        let is_newer = self.memory.deleted.get(document).is_some_and(|deleted| *deleted <= rows[granted].entry.at);
        let is_forgotten =
            |row: &&AuditRow| row.entry.action == "forget" && row.entry.reason.as_deref() == Some(RESOURCE_RECREATED);
        is_newer && rows[granted..].iter().any(is_forgotten)
    }

    /// Disagreements between ledger, audit, journal and documents.
    async fn disagreements(&self, expected: &Expected) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) = self.store().verify_audit_chain().await {
            problems.push(format!("the audit chain is broken: {error}"));
        }
        let audit = self.audit().await;
        let mut history = History::new();
        for row in &audit {
            if let (Some(document), Some(grant)) = (&row.entry.document, &row.entry.grant) {
                history.entry((document, grant)).or_default().push(row);
            }
        }
        problems.extend(self.ledger_differs(&history, expected).await);
        problems.extend(self.directory_differs().await);
        for write in self.target.journal() {
            problems.extend(self.not_audited(&write, &audit));
            problems.extend(self.foreign_removed(&write, &history));
            problems.extend(self.frozen_removed(&write));
        }
        problems.extend(self.not_written(&audit));
        problems.extend(audit.iter().filter_map(|row| self.removed_while_frozen(row)));
        problems
    }

    async fn ledger_differs(&self, history: &History<'_>, expected: &Expected) -> Vec<String> {
        let (store, mut problems) = (self.store(), Vec::new());
        let is_uncovered = !self.facts().is_covered();
        let mut audited: BTreeMap<&DocumentKey, BTreeSet<&GrantKey>> = BTreeMap::new();
        for ((document, grant), rows) in history {
            if is_owned(rows) {
                audited.entry(document).or_default().insert(grant);
            }
        }
        for (document, _) in store.ledger_documents().await.expect("documents") {
            let live = self.target.origins(&document);
            let mut owned = BTreeSet::new();
            for row in store.ledger(&document).await.expect("the ledger") {
                // Nothing is written for a frozen mapping, not even to prove a read. Without a target, it is unknown
                // whether a resource that does not answer is gone.
                let is_frozen = is_uncovered
                    || !row.claims.is_empty()
                        && row.claims.iter().all(|claim| expected.frozen.contains(&claim.mapping));
                if row.intent.is_some() && !is_frozen {
                    problems.push(format!("{}: an intent is left on {}", document.short(), row.grant.member));
                }
                if row.state == GrantState::Owned {
                    if !is_frozen && !row.spellings().any(|spelling| live.contains_key(&spelling)) {
                        problems.push(format!("{}: owned and not there: {}", document.short(), row.grant.member));
                    }
                    if !is_uncovered {
                        problems.extend(self.claims_differ(&document, &row, expected));
                    }
                    owned.insert(row.grant.clone());
                }
            }
            let audited = audited.remove(&document).unwrap_or_default();
            for grant in owned.iter().filter(|grant| !audited.contains(grant)) {
                problems.push(format!(
                    "{}: owned by the ledger and not by the audit: {}",
                    document.short(),
                    grant.member
                ));
            }
            for grant in audited.into_iter().filter(|grant| !owned.contains(*grant)) {
                problems.push(format!(
                    "{}: owned by the audit and not by the ledger: {}",
                    document.short(),
                    grant.member
                ));
            }
        }
        for (document, grants) in audited.into_iter().filter(|(_, grants)| !grants.is_empty()) {
            problems
                .push(format!("{}: owned by the audit, and the ledger knows nothing: {grants:?}", document.short()));
        }
        problems
    }

    /// Differences between the claims of an owned grant and those of the model.
    fn claims_differ(&self, document: &DocumentKey, row: &LedgerRow, expected: &Expected) -> Vec<String> {
        let stored = self.facts().stored(&row.grant);
        let what = |problem: &str, mapping: &MappingKey| {
            format!("{}: {problem} claim of {mapping} for {}", document.short(), row.grant.member)
        };
        let of_row = expected.claims.iter().filter(|(_, on, grant, _)| on == document && *grant == row.grant);
        let wanted: BTreeSet<Claim> = of_row.map(|(key, .., person)| claim_of(key, *person)).collect();
        let lost = wanted.difference(&row.claims).map(|claim| what("a lost", &claim.mapping));
        let permitted = |claim: &Claim| {
            let Subject::User(person) = claim.subject else { return false };
            let of = |grant: &GrantKey| (claim.mapping.clone(), document.clone(), grant.clone(), person);
            [&row.grant, &stored].iter().any(|grant| expected.may_claim.contains(&of(grant)))
        };
        let more = row.claims.difference(&wanted).filter(|claim| !permitted(claim));
        lost.chain(more.map(|claim| what("an ended", &claim.mapping))).collect()
    }

    /// Claims of frozen mappings that the ledger has lost.
    pub(super) async fn lost_claims(&self, facts: &Facts) -> Vec<String> {
        let (mut ledgers, mut problems) = (BTreeMap::new(), Vec::new());
        for (key, document, grant, person) in self.memory.frozen_claims(facts, self.now()) {
            if !ledgers.contains_key(document) {
                ledgers.insert(document, self.store().ledger(document).await.expect("the ledger"));
            }
            let is_it = |row: &&LedgerRow| {
                row.state == GrantState::Owned && (row.grant == *grant || facts.stored(&row.grant) == *grant)
            };
            let rows: Vec<&LedgerRow> = ledgers[document].iter().filter(is_it).collect();
            if !rows.is_empty() && !rows.iter().any(|row| row.claims.contains(&claim_of(key, person))) {
                problems.push(format!(
                    "{}: the claim of {key}, which is frozen, for {} is lost",
                    document.short(),
                    grant.member
                ));
            }
        }
        problems
    }

    /// Differences between the directory in the store and the requests that were answered with success.
    async fn directory_differs(&self) -> Vec<String> {
        let (mut people, mut teams) = (BTreeMap::new(), BTreeMap::<GroupId, Team>::new());
        let mut sink = |_: ProviderName, change: DirectoryChange| match change {
            DirectoryChange::User(facts) => drop(people.insert(facts.id, (facts.active, facts.external_id))),
            DirectoryChange::Group(GroupFacts { id, display_name: name, external_id }) => {
                drop(teams.insert(id, Team { name, external_id, ..Team::default() }));
            }
            DirectoryChange::Members { group, added, .. } => {
                teams.entry(group).or_default().members.extend(added);
            }
            DirectoryChange::Nested { group, added, .. } => {
                teams.entry(group).or_default().nested.extend(added);
            }
            DirectoryChange::UserDeleted { .. } | DirectoryChange::GroupDeleted { .. } => {}
        };
        self.store().snapshot(&mut sink).await.expect("the directory");
        for (id, team) in &mut teams {
            team.waiting = self.store().everybody(&okta(), *id, usize::MAX).await.expect("members");
            team.waiting.retain(|id| !team.members.contains(&UserId(*id)) && !team.nested.contains(&GroupId(*id)));
        }
        let facts = self.facts().clone();
        let present = facts.people.into_iter().filter(|(_, person)| !person.deleted);
        let expected: BTreeMap<_, _> = present.map(|(id, person)| (id, (person.active, person.external_id))).collect();
        let expected_teams: BTreeMap<_, _> = facts.teams.into_iter().filter(|(_, team)| !team.deleted).collect();
        let differs = |what: &str| format!("the store has other {what} than those that were stored with success");
        let mut problems = self.look_ups_differ().await;
        problems.extend((people != expected).then(|| differs("people")));
        problems.extend((teams != expected_teams).then(|| differs("groups")));
        problems
    }

    /// The parts of a write that no audit row announced.
    fn not_audited(&self, write: &Write, audit: &[AuditRow]) -> Vec<String> {
        let at = self.clock.at(write.at);
        let announced: Vec<(&str, &GrantKey)> = audit
            .iter()
            .map(|row| &row.entry)
            .filter(|entry| entry.document.as_ref() == Some(&write.document) && entry.at <= at)
            .filter(|entry| entry.revision_before.as_ref() == Some(&write.revision_before))
            .filter(|entry| matches!(entry.outcome, AuditOutcome::Intended | AuditOutcome::Refused))
            .filter_map(|entry| Some((entry.action.as_str(), entry.grant.as_ref()?)))
            .collect();
        let aliases = &self.facts().aliases;
        let is_respelled =
            |grant: &GrantKey| aliases.values().any(|primary| crate::model::MemberKey::of(primary) == grant.member);
        let added = write.add.iter().filter(|grant| !announced.contains(&("grant", grant)));
        let removed =
            write.remove.iter().filter(|grant| !is_respelled(grant) && !announced.contains(&("revoke", grant)));
        let what = |grant: &GrantKey| {
            format!(
                "{}: no intent in the audit for {} on {}",
                write.document.short(),
                grant.member,
                write.revision_before
            )
        };
        added.chain(removed).map(what).collect()
    }

    /// The acknowledged steps of the audit that no write made.
    fn not_written(&self, audit: &[AuditRow]) -> Vec<String> {
        let journal = self.target.journal();
        let steps = audit.iter().map(|row| &row.entry).filter(|entry| {
            entry.outcome == AuditOutcome::Acknowledged
                && entry.revision_after.is_some()
                && matches!(entry.action.as_str(), "grant" | "revoke")
                && entry.document.is_some()
        });
        let written = |entry: &&crate::model::AuditEntry| {
            journal.iter().any(|write| {
                entry.document.as_ref() == Some(&write.document)
                    && entry.revision_after.as_ref() == Some(&write.revision_after)
                    && entry.revision_before.as_ref() == Some(&write.revision_before)
                    && (entry.action == "revoke" || entry.grant.as_ref().is_some_and(|grant| write.add.contains(grant)))
            })
        };
        let lines = steps.filter(|entry| !written(entry));
        lines
            .map(|entry| {
                format!(
                    "the audit acknowledges what was not written: {} {:?} -> {:?}",
                    entry.action, entry.grant, entry.revision_after
                )
            })
            .collect()
    }

    /// Foreign grants that a write removed without an excuse.
    fn foreign_removed(&self, write: &Write, history: &History<'_>) -> Vec<String> {
        let at = self.clock.at(write.at);
        let excused = |grant: &GrantKey, origin: Origin| {
            let keys = history.keys().filter(|(document, other)| {
                **document == write.document && (*other == grant || self.facts().stored(other) == *grant)
            });
            keys.into_iter().any(|key| {
                let rows: Vec<&&AuditRow> = history[key].iter().filter(|row| row.entry.at <= at).collect();
                let last_owned = rows.iter().rposition(|row| is_of_ours(row));
                let Some(owned) = last_owned else { return false };
                let lost = rows[owned..].iter().any(|row| matches!(row.entry.action.as_str(), "lost" | "forget"));
                match origin {
                    Origin::Engine => true,
                    // Nobody could see that it had been removed.
                    Origin::Restored => !lost,
                    // Nobody could see whether a call of ours had made it, or had removed it before.
                    Origin::Foreign => {
                        let is_unclear = |row: &&AuditRow| row.entry.action == "revoke" && is_of_ours(row);
                        let unclear = rows[owned..].iter().any(|row| is_unclear(row));
                        (rows[owned].entry.outcome == AuditOutcome::Ambiguous || unclear) && !lost
                    }
                }
            })
        };
        let foreign = write.gone.iter().filter(|(_, origin)| *origin != Origin::Engine);
        let removed = foreign.filter(|(grant, origin)| !excused(grant, *origin));
        removed
            .map(|(grant, origin)| {
                format!("{}: {} ({origin:?}) of somebody else was removed", write.document.short(), grant.member)
            })
            .collect()
    }

    /// Grants of a frozen mapping that a write removed.
    fn frozen_removed(&self, write: &Write) -> Vec<String> {
        let (at, facts) = (self.clock.at(write.at), self.facts());
        let ours = write.gone.iter().filter(|(_, origin)| *origin == Origin::Engine).map(|(grant, _)| grant);
        let kept =
            ours.filter_map(|grant| Some((grant, self.memory.frozen_owner(&facts, &write.document, grant, at)?)));
        kept.map(|(grant, key)| {
            format!("{}: {} was removed while {key}, which had it, was frozen", write.document.short(), grant.member)
        })
        .collect()
    }

    /// A claim that ended although its mapping was frozen and its person had not left.
    fn removed_while_frozen(&self, row: &AuditRow) -> Option<String> {
        let entry = &row.entry;
        let is_removal = entry.action == "revoke" && entry.outcome == AuditOutcome::Intended;
        if !is_removal || entry.reason.as_deref() == Some(PRINCIPAL_RESPELLED) {
            return None;
        }
        let facts = self.facts();
        // An end is of the role: it also ends what the mapping gave under another condition before.
        let over = entry.reason.as_deref() == Some(Cause::Expired.reason()) && facts.any_is_over(entry.at);
        if over || entry.grant.as_ref().is_some_and(|grant| facts.is_over(grant, entry.at)) {
            return None;
        }
        let stayed = |subject: &str| {
            let id = subject.parse().ok().map(UserId)?;
            let person = facts.people.get(&id)?;
            Some(!person.was_away(entry.at))
        };
        let frozen: Option<&MappingKey> = entry
            .claims
            .iter()
            .find(|claim| stayed(&claim.subject) == Some(true) && self.memory.was_frozen(&claim.mapping, entry.at))
            .map(|claim| &claim.mapping);
        frozen.map(|key| format!("a claim of {key} ended while it was frozen: {}", shown(row)))
    }
}

fn claim_of(mapping: &MappingKey, person: UserId) -> Claim {
    Claim { mapping: mapping.clone(), subject: Subject::User(person) }
}

fn took_effect(row: &AuditRow) -> bool {
    matches!(row.entry.outcome, AuditOutcome::Acknowledged | AuditOutcome::Ambiguous)
}

/// True when the row says that a grant is the engine's: it was made, or its revocation did not take place. The latter is
/// the only row of a grant whose answer was lost, and whose process ended before the outcome was proven.
fn is_of_ours(row: &AuditRow) -> bool {
    match row.entry.action.as_str() {
        "grant" => took_effect(row),
        "revoke" => row.entry.reason.as_deref() == Some("NotCommitted"),
        _ => false,
    }
}

/// True when a grant is owned according to the audit.
fn is_owned(rows: &[&AuditRow]) -> bool {
    rows.iter().fold(false, |owned, row| match row.entry.action.as_str() {
        _ if is_of_ours(row) => true,
        "revoke" if took_effect(row) => false,
        "lost" | "forget" => false,
        _ => owned,
    })
}
