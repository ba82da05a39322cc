//! Tests of the condition table row by row, and of the laws of folding.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;
use crate::api::condition::kind;
use crate::api::{DriftSample, MappingMode, RefusedPath, RoleMappingStatus};
use crate::model::{
    ClaimDisposal, DocumentKey, DriftKind, FreezeReason, Kind, MappingPhase, MemberKey, Reason, ResourceKind,
};

mod cache;
mod fit;
mod laws;
mod others;
mod runbook;
mod table;

fn now() -> Timestamp {
    "2027-01-31T12:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn document(name: &str) -> DocumentKey {
    DocumentKey::cloud_run("shop-dev", "europe-west1", ResourceKind::Service, name).unwrap()
}

/// A document on which `n` grants are converged.
fn settled(name: &str, n: u64) -> DocumentOutcome {
    let claims = ClaimCounts { desired: n, acknowledged: n, verified: n, ..ClaimCounts::default() };
    DocumentOutcome { claims: Some(claims), ..DocumentOutcome::unread(document(name)) }
}

fn with_claims(name: &str, change: impl FnOnce(&mut ClaimCounts)) -> DocumentOutcome {
    let mut outcome = settled(name, 4);
    change(outcome.claims.as_mut().unwrap());
    outcome
}

fn failure(reason: Reason, since: Timestamp) -> Failure {
    Failure { reason, message: "Google said so".to_owned(), since }
}

fn group(name: &str) -> SubjectOutcome {
    SubjectOutcome {
        identity_provider: "okta".to_owned(),
        display_name: Some(name.to_owned()),
        id: Some("0b7e".to_owned()),
        members: 4,
        ..SubjectOutcome::default()
    }
}

fn refused(path: &str) -> RefusedPath {
    RefusedPath {
        reason: None,
        path: path.to_owned(),
        resource: "services/checkout-api".to_owned(),
        role: "roles/run.admin".to_owned(),
    }
}

/// A mapping as the engine reports it; the default is converged.
#[derive(Debug, Clone)]
struct Scene {
    generation: i64,
    mode: MappingMode,
    ceiling_observes: bool,
    ending: bool,
    problem: Option<Failure>,
    frozen: Option<FreezeReason>,
    admitted: u64,
    refused: Vec<RefusedPath>,
    unmatched: Vec<String>,
    subjects: Vec<SubjectOutcome>,
    documents: Vec<DocumentOutcome>,
    loading: Option<String>,
    frozen_detail: String,
    reconcile: Option<String>,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            generation: 7,
            mode: MappingMode::Enforce,
            ceiling_observes: false,
            ending: false,
            problem: None,
            frozen: None,
            admitted: 2,
            refused: Vec::new(),
            unmatched: Vec::new(),
            subjects: vec![group("team-checkout")],
            documents: vec![settled("checkout-api", 4), settled("checkout-web", 4)],
            loading: None,
            frozen_detail: String::new(),
            reconcile: None,
        }
    }
}

impl Scene {
    fn fold_at(&self, previous: Option<&RoleMappingStatus>, at: Timestamp) -> Folded<RoleMappingStatus> {
        let input = MappingInput {
            loading: self.loading.as_deref(),
            generation: self.generation,
            mode: self.mode,
            ceiling_observes: self.ceiling_observes,
            phase: if self.ending { MappingPhase::Terminating(ClaimDisposal::Revoke) } else { MappingPhase::Live },
            problem: self.problem.as_ref(),
            frozen: self.frozen,
            frozen_detail: &self.frozen_detail,
            admitted: self.admitted,
            refused: &self.refused,
            unmatched: &self.unmatched,
            ends: Ends::default(),
            subjects: &self.subjects,
            documents: &self.documents,
            last_handled_reconcile_at: self.reconcile.as_deref(),
        };
        fold_mapping(&input, previous, at)
    }

    fn fold(&self, previous: Option<&RoleMappingStatus>) -> RoleMappingStatus {
        self.fold_at(previous, now()).status
    }

    /// The previous status, from an hour ago, when everything was converged.
    fn before() -> RoleMappingStatus {
        Self::default().fold_at(None, ago(3600)).status
    }
}

fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// `Accepted=True/Accepted Ready=False/Progressing Reconciling=True/Progressing`
fn line(conditions: &[Condition]) -> String {
    let each: Vec<String> = conditions
        .iter()
        .map(|condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason))
        .collect();
    each.join(" ")
}
