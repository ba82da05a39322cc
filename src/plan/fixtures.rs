//! Test fixture for planning: a document with a revision, a ledger, and the wanted grants.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::model::guard_book::{Facts, GuardBook};
use crate::model::{
    AuditOutcome, Capacity, Claim, ClaimTerms, Condition, ConditionHash, DesiredGrant, Enforcement, FreezeReason,
    GrantState, Keep, MemberKey, Principal, RemovalLimits, RemovalScope, Role, Stored, UserId,
};

pub(super) const INVOKER: &str = "roles/run.invoker";
pub(super) const VIEWER: &str = "roles/run.viewer";
pub(super) const WRITE: ClaimTerms = ClaimTerms { write: true, regrant: true };
pub(super) const REPORT: ClaimTerms = ClaimTerms { write: true, regrant: false };
pub(super) const OBSERVE: ClaimTerms = ClaimTerms { write: false, regrant: true };

pub(super) fn mapping(name: &str) -> MappingKey {
    MappingKey::new("team", name).unwrap()
}

pub(super) fn user(n: u128) -> Subject {
    Subject::User(UserId(Uuid::from_u128(n)))
}

pub(super) fn email(n: u128) -> String {
    format!("user:p{n}@corp.example")
}

pub(super) fn key(role: &str, member: &str) -> GrantKey {
    GrantKey { role: Role::new(role).unwrap(), condition: ConditionHash::default(), member: MemberKey::of(member) }
}

pub(super) fn invoker(n: u128) -> GrantKey {
    key(INVOKER, &email(n))
}

/// Capacity of the fixture's document, in appearances of principals.
pub(super) const LIMIT: usize = 100;

/// A document with these bindings, each with a role, members and an optional condition.
pub(super) fn document(bindings: &serde_json::Value) -> Live {
    let mut live = Live { revision: "e0".to_owned(), ..Live::default() };
    for binding in bindings.as_array().unwrap() {
        let condition: Option<Condition> =
            binding.get("condition").map(|condition| serde_json::from_value(condition.clone()).unwrap());
        let role = binding["role"].as_str().unwrap();
        for member in binding["members"].as_array().unwrap() {
            put(&mut live, role, ConditionHash::of(condition.as_ref()), member.as_str().unwrap());
        }
    }
    live.capacity = Some(capacity(&live));
    live
}

/// Adds a member to the document.
pub(super) fn put(live: &mut Live, role: &str, condition: ConditionHash, member: &str) {
    let key = MemberKey::of(member);
    let Ok(role) = Role::new(role) else {
        live.beyond.insert((role.to_owned(), condition, key));
        return;
    };
    let stored = live.grants.entry(GrantKey { role, condition, member: key });
    stored.or_insert_with(|| Stored { member: member.to_owned(), times: 0 }).times += 1;
}

fn capacity(live: &Live) -> Capacity {
    let used = live.grants.values().map(|stored| stored.times).sum::<usize>() + live.beyond.len();
    Capacity { used, limit: LIMIT, groups_limit: LIMIT, ..Capacity::default() }
}

/// Fixture around `plan`: a document, a ledger, the wanted grants, and the people who have left.
#[derive(Debug)]
pub(super) struct Fixture {
    pub(super) document: DocumentKey,
    pub(super) desired: Desired,
    pub(super) ledger: BTreeMap<GrantKey, LedgerRow>,
    pub(super) live: Live,
    pub(super) now: Timestamp,
    pub(super) book: GuardBook,
    pub(super) left: BTreeSet<Subject>,
    pub(super) lapsed: BTreeSet<(MemberKey, Claim)>,
    pub(super) audit: Vec<AuditEntry>,
    pub(super) writes: u32,
}

impl Fixture {
    pub(super) fn new(bindings: &serde_json::Value) -> Self {
        Self {
            document: "run:projects/p/locations/l/services/s".parse().unwrap(),
            desired: Desired::default(),
            ledger: BTreeMap::new(),
            live: document(bindings),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            book: GuardBook::default(),
            left: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            audit: vec![],
            writes: 0,
        }
    }

    pub(super) fn want(&mut self, by: &str, role: &str, n: u128, terms: ClaimTerms) {
        let member = Principal::google_account(email(n).trim_start_matches("user:"), &["corp.example".into()]).unwrap();
        let grant = self.desired.grants.entry(key(role, &email(n))).or_insert_with(|| DesiredGrant {
            member,
            condition: None,
            claims: BTreeMap::new(),
            grounds: BTreeMap::new(),
            allowed_domains: ["corp.example".to_owned()].into(),
        });
        grant.claims.insert(Claim { mapping: mapping(by), subject: user(n) }, terms);
        let live = Enforcement::Live { keep: Keep::Nothing };
        self.enforcement(by, if terms.write { live } else { Enforcement::Frozen(FreezeReason::Observed) });
    }

    pub(super) fn unwant(&mut self, by: &str) {
        for grant in self.desired.grants.values_mut() {
            grant.claims.retain(|claim, _| claim.mapping != mapping(by));
        }
        self.desired.grants.retain(|_, grant| !grant.claims.is_empty());
    }

    pub(super) fn unwant_person(&mut self, n: u128) {
        for grant in self.desired.grants.values_mut() {
            grant.claims.retain(|claim, _| claim.subject != user(n));
        }
        self.desired.grants.retain(|_, grant| !grant.claims.is_empty());
    }

    pub(super) fn permit_orphan(&mut self, by: &str) {
        self.desired.may_orphan.insert(mapping(by), BTreeSet::from([key(INVOKER, "x").role, key(VIEWER, "x").role]));
    }

    pub(super) fn reach(&mut self, by: &str) {
        self.desired.reached.insert(mapping(by), BTreeSet::from([key(INVOKER, "x").role]));
    }

    pub(super) fn adopt(&mut self, by: &str) {
        self.desired.may_adopt.insert(mapping(by), BTreeSet::from([key(INVOKER, "x").role]));
    }

    pub(super) fn enforcement(&mut self, by: &str, enforcement: Enforcement) {
        self.desired.enforcements.insert(mapping(by), enforcement);
    }

    pub(super) fn plan(&self) -> Plan {
        self.plan_with(&mut self.book.clone())
    }

    /// The inputs of the planner, without anything held.
    pub(super) fn inputs(&self) -> Inputs {
        Inputs {
            document: self.document.clone(),
            desired: self.desired.clone(),
            ledger: self.ledger.values().cloned().map(Arc::new).collect(),
            live: Arc::new(self.live.clone()),
            evidence: Evidence::Current,
            revision: None,
            resource_uid: None,
            now: self.now,
            held: BTreeSet::new(),
            leavers: self.left.clone(),
            lapsed: self.lapsed.clone(),
        }
    }

    /// Plans, and plans again with the guard's answer.
    fn plan_with(&self, book: &mut GuardBook) -> Plan {
        let with = |held: &BTreeSet<Removal>| plan(&Inputs { held: held.clone(), ..self.inputs() });
        let open = with(&BTreeSet::new());
        if !open.guarded {
            return open;
        }
        let people = |scope: &RemovalScope, since: Timestamp| {
            let old = |row: &&LedgerRow| {
                row.state == GrantState::Owned && row.acknowledged_at.is_none_or(|acknowledged| acknowledged < since)
            };
            let of = |claim: &&Claim| match scope {
                RemovalScope::Mapping(mapping) => claim.mapping == *mapping,
                RemovalScope::Leavers(_) => true,
            };
            self.ledger.values().filter(old).flat_map(|row| &row.claims).filter(of).map(|claim| claim.subject).collect()
        };
        let limits = RemovalLimits::default();
        let facts = Facts { limits, now: self.now, provider: &|_| None, people: &people };
        with(&book.decide(&self.document, &open.asks, &facts))
    }

    /// Releases the removals that the guard currently holds.
    pub(super) fn release(&mut self, held: &Held) {
        for part in &held.parts {
            self.book.release(&self.document, &part.removals);
        }
    }

    pub(super) fn record(&mut self, (changes, audit): (Vec<LedgerChange>, Vec<AuditEntry>)) {
        for change in changes {
            match change {
                LedgerChange::Put(row) => self.ledger.insert(row.grant.clone(), row),
                LedgerChange::Remove(grant) => self.ledger.remove(&grant),
            };
        }
        self.audit.extend(audit);
    }

    pub(super) fn commit(&mut self, plan: &Plan) {
        self.live = plan.read().after(plan.changes.as_ref().unwrap());
        self.touch();
    }

    /// Simulates a foreign write of the document.
    pub(super) fn touch(&mut self) {
        self.writes += 1;
        self.live.never_set = false;
        self.live.capacity = Some(capacity(&self.live));
        self.live.revision = format!("e{}", self.writes);
    }

    pub(super) fn stranger(&mut self, role: &str, member: &str, there: bool) {
        if there {
            put(&mut self.live, role, ConditionHash::default(), member);
        } else {
            self.live.grants.remove(&key(role, member));
        }
        self.touch();
    }

    pub(super) fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Runs one whole reconcile with this outcome; `Unknown` did not take effect.
    pub(super) fn pass_with(&mut self, outcome: &CallOutcome) -> Plan {
        self.later(1);
        let mut book = self.book.clone();
        let plan = self.plan_with(&mut book);
        self.book = book;
        if plan.changes.is_none() {
            self.record((plan.ledger.clone(), plan.audit.clone()));
            return plan;
        }
        self.record(plan.intend(self.now));
        if matches!(outcome, CallOutcome::Acknowledged { .. }) {
            self.commit(&plan);
        }
        self.later(1);
        self.record(plan.settle(outcome, self.now));
        plan
    }

    pub(super) fn pass(&mut self) -> Plan {
        self.pass_with(&CallOutcome::Acknowledged { revision: "after".into() })
    }

    pub(super) fn members(&self, role: &str) -> Vec<&str> {
        let here = |grant: &GrantKey| grant.role.as_str() == role && grant.condition == ConditionHash::default();
        self.live.grants().filter(|(grant, _)| here(grant)).map(|(_, member)| member).collect()
    }

    pub(super) fn row(&self, grant: &GrantKey) -> &LedgerRow {
        &self.ledger[grant]
    }

    pub(super) fn audited(&self, action: &str) -> Vec<(AuditOutcome, Option<&str>)> {
        let rows = self.audit.iter().filter(|entry| entry.action == action);
        rows.map(|entry| (entry.outcome, entry.reason.as_deref())).collect()
    }
}

pub(super) fn refused() -> CallOutcome {
    CallOutcome::Refused { reason: "PermissionDenied".into() }
}

/// A fixture in which people 1..=n have the invoker role through the mapping `m`, all of it verified.
pub(super) fn granted(n: u128) -> Fixture {
    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": ["user:foreign@corp.example"]}]));
    for person in 1..=n {
        fixture.want("m", INVOKER, person, WRITE);
    }
    fixture.pass();
    fixture.pass();
    assert!(fixture.ledger.values().all(|row| row.state == GrantState::Owned && row.verified_at.is_some()));
    fixture
}
